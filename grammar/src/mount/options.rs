//! The options of one mount, and what each type makes of them.

use super::fields::{Field, split};
use super::{Kind, Mount, Sharing};
use crate::ast::Word;
use crate::diagnostic::{Diagnostic, quoted};
use crate::expand::{Variables, expand, has_variable};
use crate::instruction::one_of;
use crate::span::Span;

/// Every option, the short names included, for suggestions.
const KEYS: [&str; 21] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "size",
    "env",
    "tmpcopyup",
    "notmpcopyup",
];

const TYPES: [(&str, Kind); 5] = [
    ("bind", Kind::Bind),
    ("cache", Kind::Cache),
    ("tmpfs", Kind::Tmpfs),
    ("secret", Kind::Secret),
    ("ssh", Kind::Ssh),
];

const SHARINGS: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

type Checked<T> = Result<T, Box<Diagnostic>>;

/// What was given, expanded; a later option replaces an earlier one.
pub(super) struct Options {
    pub(super) kind: Kind,
    span: Span,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    id: Option<String>,
    env: Option<String>,
    readonly: Option<bool>,
    required: bool,
    sharing: Option<Sharing>,
    size: Option<u64>,
    copy_up: bool,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Options {
    pub(super) fn read(list: &Word, escape: char, variables: &dyn Variables) -> Checked<Self> {
        let fields = split(list)?;
        let mut expanded = Vec::with_capacity(fields.len());
        for field in fields {
            let value = expand_value(&field, escape, variables)?;
            expanded.push((field, value));
        }
        let mut options = Self::empty(list.span);
        // the type decides what the other options mean, wherever it stands
        for (field, value) in expanded.iter().filter(|(field, _)| field.key.raw == "type") {
            let value = value.as_deref().ok_or_else(|| without_value(field))?;
            options.kind = choice(field, value, "mount type", &TYPES)?;
        }
        for (field, value) in &expanded {
            options.set(field, value.as_deref())?;
        }
        Ok(options)
    }

    fn empty(span: Span) -> Self {
        Self {
            kind: Kind::Bind,
            span,
            from: None,
            source: None,
            target: None,
            id: None,
            env: None,
            readonly: None,
            required: false,
            sharing: None,
            size: None,
            copy_up: false,
            mode: None,
            uid: None,
            gid: None,
        }
    }

    fn set(&mut self, field: &Field, value: Option<&str>) -> Checked<()> {
        match field.key.raw.as_str() {
            "readonly" | "ro" => self.readonly = Some(boolean(field, value)?),
            "readwrite" | "rw" => self.readonly = Some(!boolean(field, value)?),
            "required" => {
                self.only_for(field, &[Kind::Secret, Kind::Ssh])?;
                self.required = boolean(field, value)?;
            }
            key @ ("tmpcopyup" | "notmpcopyup") => {
                self.only_for(field, &[Kind::Tmpfs])?;
                self.copy_up = boolean(field, value)? == (key == "tmpcopyup");
            }
            // SELinux labels, which buildah's users ask for: kiln needs none to let a step in
            "z" => self.only_for(field, &[Kind::Bind, Kind::Cache])?,
            key if !KEYS.contains(&key) => return Err(unknown(field)),
            _ => self.set_value(field, value.ok_or_else(|| without_value(field))?)?,
        }
        Ok(())
    }

    fn set_value(&mut self, field: &Field, value: &str) -> Checked<()> {
        let given = Some(value.to_owned()).filter(|value| !value.is_empty());
        match field.key.raw.as_str() {
            "from" => {
                self.only_for(field, &[Kind::Bind, Kind::Cache, Kind::Tmpfs, Kind::Ssh])?;
                self.from = given;
            }
            "source" | "src" => self.source = given,
            "target" | "dst" | "destination" => self.target = given,
            "id" => self.id = given,
            "env" => {
                self.only_for(field, &[Kind::Secret])?;
                self.env = given;
            }
            "sharing" => {
                self.only_for(field, &[Kind::Cache])?;
                self.sharing = Some(choice(field, value, "sharing mode", &SHARINGS)?);
            }
            "size" => {
                self.only_for(field, &[Kind::Tmpfs])?;
                self.size = Some(bytes(value).ok_or_else(|| invalid(field, value, "expected bytes, such as `64m`"))?);
            }
            "mode" => self.mode = Some(self.number(field, value, 8, "expected an octal mode, such as `0644`")?),
            "uid" => self.uid = Some(self.number(field, value, 10, "expected a number")?),
            "gid" => self.gid = Some(self.number(field, value, 10, "expected a number")?),
            _ => {}
        }
        Ok(())
    }

    fn number(&self, field: &Field, value: &str, radix: u32, expected: &str) -> Checked<u32> {
        self.only_for(field, &[Kind::Cache, Kind::Secret, Kind::Ssh])?;
        // `from_str_radix` also takes a sign
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        u32::from_str_radix(value, radix).ok().filter(|_| digits).ok_or_else(|| invalid(field, value, expected))
    }

    fn only_for(&self, field: &Field, kinds: &[Kind]) -> Checked<()> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        let names: Vec<&str> = TYPES.iter().filter(|(_, kind)| kinds.contains(kind)).map(|(name, _)| *name).collect();
        let this = TYPES.iter().find(|(_, kind)| *kind == self.kind).map_or("", |(name, _)| name);
        Err(Diagnostic::error(format!("{} is no option of a {this} mount", quoted(&field.key.raw)), field.span)
            .with_label(format!("only for {}", one_of(&names)))
            .boxed())
    }

    fn target_or_working_directory(target: Option<String>) -> String {
        target.unwrap_or_else(|| ".".to_owned())
    }

    pub(super) fn bind(self) -> Checked<Mount> {
        Ok(Mount::Bind {
            from: self.from,
            source: self.source.unwrap_or_else(|| "/".to_owned()),
            target: Self::target_or_working_directory(self.target),
            writable: self.readonly == Some(false),
        })
    }

    pub(super) fn cache(self) -> Checked<Mount> {
        let target = Self::target_or_working_directory(self.target);
        Ok(Mount::Cache {
            id: self.id.unwrap_or_else(|| target.clone()),
            target,
            readonly: self.readonly == Some(true),
            sharing: self.sharing.unwrap_or(Sharing::Shared),
            from: self.from,
            source: self.source.unwrap_or_else(|| "/".to_owned()),
            mode: self.mode.unwrap_or(0o755),
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
        })
    }

    pub(super) fn tmpfs(self) -> Checked<Mount> {
        Ok(Mount::Tmpfs {
            target: Self::target_or_working_directory(self.target),
            // go's zero: no limit
            size: self.size.filter(|size| *size > 0),
            copy_up: self.copy_up,
        })
    }

    pub(super) fn secret(self) -> Checked<Mount> {
        if self.source.is_some() && self.id.is_some() {
            return Err(Diagnostic::error("a secret mount has an `id` or a `source`, not both", self.span).boxed());
        }
        let from_target = || self.target.as_deref().and_then(last_name).map(str::to_owned);
        let Some(id) = self.id.clone().or_else(|| self.source.clone()).or_else(from_target) else {
            return Err(Diagnostic::error("a secret mount needs an `id` or a `target`", self.span)
                .with_label("expected `id=<name>`")
                .boxed());
        };
        let target = match (&self.target, &self.env) {
            (Some(target), _) => Some(target.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(format!("/run/secrets/{}", last_name(&id).unwrap_or(&id))),
        };
        Ok(Mount::Secret {
            id,
            target,
            env: self.env,
            required: self.required,
            mode: self.mode.unwrap_or(0o400),
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
        })
    }

    pub(super) fn ssh(self) -> Checked<Mount> {
        Ok(Mount::Ssh {
            id: self.id.or(self.source).unwrap_or_else(|| "default".to_owned()),
            target: self.target,
            required: self.required,
            mode: self.mode.unwrap_or(0o600),
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
        })
    }
}

fn expand_value(field: &Field, escape: char, variables: &dyn Variables) -> Checked<Option<String>> {
    let Some(value) = &field.value else { return Ok(None) };
    if field.key.raw == "from" && has_variable(&value.raw) {
        return Err(Diagnostic::error("`from` does not expand variables", value.span)
            .with_label("expected a stage, an image or a named context")
            .with_help("give it a name that is known: `FROM ${IMAGE} AS source`, then `from=source`")
            .boxed());
    }
    expand(value, escape, variables).map(Some)
}

fn choice<T: Copy>(field: &Field, value: &str, what: &str, choices: &[(&str, T)]) -> Checked<T> {
    let lower = value.to_lowercase();
    if let Some((_, found)) = choices.iter().find(|(name, _)| *name == lower) {
        return Ok(*found);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let span = field.value.as_ref().map_or(field.span, |value| value.span);
    Err(Diagnostic::error(format!("unknown {what} {}", quoted(value)), span)
        .with_label(format!("expected {}", one_of(&names)))
        .with_nearest(value, &names)
        .boxed())
}

fn boolean(field: &Field, value: Option<&str>) -> Checked<bool> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(invalid(field, other, "expected `true` or `false`")),
    }
}

/// A size as docker takes it: a number, perhaps with a fraction, and `k`, `m`, `g`, `t` or `p`, then `b` or `ib`.
fn bytes(value: &str) -> Option<u64> {
    let lower = value.to_ascii_lowercase();
    let unit_start =
        lower.find(|character: char| !(character.is_ascii_digit() || character == '.')).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(unit_start);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let power = match unit.strip_suffix("ib").filter(|unit| !unit.is_empty()).or(unit.strip_suffix('b')).unwrap_or(unit)
    {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let scale = 1_u64 << (10 * power);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    // sizes are whole bytes, so the fraction's rounding is below what anybody can see
    let fraction: f64 = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().ok()? };
    let part = (fraction * scale as f64) as u64;
    whole.checked_mul(scale)?.checked_add(part)
}

fn last_name(path: &str) -> Option<&str> {
    path.rsplit('/').find(|name| !name.is_empty())
}

fn invalid(field: &Field, value: &str, expected: &str) -> Box<Diagnostic> {
    let span = field.value.as_ref().map_or(field.span, |value| value.span);
    Diagnostic::error(format!("invalid value {} for {}", quoted(value), quoted(&field.key.raw)), span)
        .with_label(expected)
        .boxed()
}

fn without_value(field: &Field) -> Box<Diagnostic> {
    let message = match field.key.raw.as_str() {
        "" => "an empty --mount option".to_owned(),
        key => format!("{} needs a value", quoted(key)),
    };
    Diagnostic::error(message, field.span).with_label("expected `key=value`").boxed()
}

fn unknown(field: &Field) -> Box<Diagnostic> {
    if field.key.raw.is_empty() {
        return without_value(field);
    }
    let help = format!("the options are {}", KEYS.join(", "));
    Diagnostic::error(format!("unknown --mount option {}", quoted(&field.key.raw)), field.key.span)
        .with_label("no such option")
        .with_help(help)
        .with_nearest(&field.key.raw, &KEYS)
        .boxed()
}
