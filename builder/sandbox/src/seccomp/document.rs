//! The profile as an OCI runtime reads it.

use serde_json::{Value, json};

use super::profile::{Action, Subject};
use super::table::ROWS;

/// `linux.seccomp` of the runtime spec.
pub(crate) fn document(subject: Subject) -> Value {
    let mut rules: Vec<Value> = Vec::new();
    let mut allowed: Vec<&str> = Vec::new();
    let only = |name: &str, op: &str, value: u32, two: u32| {
        json!({"names": [name], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "valueTwo": two, "op": op}]})
    };
    let fails = |name: &str, error: i32| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": error});
    for row in ROWS {
        match row.rule.action(subject) {
            Action::Allow => allowed.push(row.name),
            Action::Deny => {}
            Action::Missing => rules.push(fails(row.name, libc::ENOSYS)),
            Action::Pretend => rules.push(fails(row.name, 0)),
            Action::AllowUnless(value) => rules.push(only(row.name, "SCMP_CMP_NE", value, 0)),
            Action::AllowWithout(bits) => rules.push(only(row.name, "SCMP_CMP_MASKED_EQ", bits, 0)),
            Action::AllowIfOneOf(values) => {
                rules.extend(values.iter().map(|value| only(row.name, "SCMP_CMP_EQ", *value, 0)));
            }
        }
    }
    rules.push(json!({"names": allowed, "action": "SCMP_ACT_ALLOW"}));
    let architectures = if cfg!(target_arch = "aarch64") {
        ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"].as_slice()
    } else {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": architectures,
        "syscalls": rules,
    })
}
