//! Control groups of version 2 on whatever machine this is: in a mount namespace where nothing else is mounted, with
//! the controllers that version 1 has left. Those that are there are tried; pausing, counting and removal need none.

use std::process::Command;

use kiln_tests::{Account, Kiln, Outcome, run};

/// Runs a script with version 2 alone at its usual place. `K` is kiln, `G` a group of the account's own.
fn in_version_2(kiln: &Kiln, script: &str) -> Outcome {
    let account = kiln.account();
    let set_up = "
        set -e
        umount -R -l /sys/fs/cgroup
        mkdir -p /sys/fs/cgroup 2>/dev/null || true
        mount -t cgroup2 none /sys/fs/cgroup
        G=/sys/fs/cgroup/kiln-tests-$$
        export G
        mkdir $G $G/shell
        for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
            echo +$controller > /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
        done
        chown -R $USER_ID $G
        echo 0 > $G/shell/cgroup.procs
        set +e
        if [ $USER_ID = 0 ]; then sh -c \"$SCRIPT\"; else
            setpriv --reuid $USER_ID --regid $GROUP_ID --clear-groups sh -c \"$SCRIPT\"
        fi
        status=$?
        echo 0 > /sys/fs/cgroup/cgroup.procs
        for try in 1 2 3 4 5 6 7 8 9 10; do
            find $G -depth -type d -exec rmdir {} + 2>/dev/null && break
            sleep 0.3
        done
        exit $status";
    let template = kiln.command(["version"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", set_up]).env_clear().current_dir("/");
    for (name, value) in template.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.env("K", template.get_program()).env("SCRIPT", script);
    command.env("USER_ID", account.uid.to_string()).env("GROUP_ID", account.gid.to_string());
    run(command).no_panic()
}

const LIFE: &str = r#"
    id=$($K run -d --network none --name box busybox sh -c 'while :; do :; done') || exit 1
    $K pause box || exit 1
    group=$(dirname $(find /sys/fs/cgroup -path "*$id/cgroup.freeze"))
    echo "frozen $(cat $group/cgroup.freeze) $(grep -c . $group/cgroup.procs) in ${group#/sys/fs/cgroup}"
    $K ps --format '{{.Status}}'
    $K unpause box || exit 1
    echo "thawed $(cat $group/cgroup.freeze)"
    $K exec box sleep 1
    $K exec -d box sleep 1000
    for try in 1 2 3 4 5 6 7 8 9 10; do [ $(grep -c . $group/cgroup.procs) = 2 ] && break; sleep 0.1; done
    echo "entered $(grep -c . $group/cgroup.procs)"
    $K pause box && $K kill box && $K wait box
    $K rm box
    [ -e $group ] && echo left || echo gone
    id=$($K run -d --network none --name limited -m 64m --pids-limit 20 --cpus 0.5 busybox sh -c 'while :; do :; done')
    controllers=" $(cat $(dirname $group)/cgroup.controllers) "
    for one in memory:memory.max:67108864 pids:pids.max:20 cpu:cpu.max:50000; do
        controller=${one%%:*}; rest=${one#*:}; file=${rest%%:*}; wanted=${rest#*:}
        case $controllers in
            *" $controller "*) grep -q $wanted $(dirname $group)/$id/$file && echo "$controller holds" ;;
            *) echo "$controller is not here" ;;
        esac
    done
    $K pause limited >/dev/null && $K unpause limited
    $K stats --no-stream --format '{{.Name}} {{.PIDs}}' limited
    $K rm -f limited
    [ -e $(dirname $group)/$id ] && echo left || echo gone
"#;

fn check(outcome: &Outcome, place: &str) {
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let at = |text: &str| {
        let found = lines.iter().position(|line| line.starts_with(text));
        found.unwrap_or_else(|| panic!("no {text:?} in {outcome}"))
    };
    assert!(lines[at("frozen 1 1 in ")].contains(place), "{outcome}");
    assert!(at("Up ") < at("thawed 0") && lines[at("Up ")].contains("(Paused)"), "{outcome}");
    at("entered 2");
    at("137");
    for (controller, flag) in [("memory", "--memory"), ("pids", "--pids-limit"), ("cpu", "--cpus")] {
        let holds = lines.contains(&format!("{controller} holds").as_str());
        let told = outcome.stderr.contains(&format!("WARNING: {flag} does not hold"));
        assert!(holds != told, "{controller}: {outcome}");
    }
    at("limited 1");
    assert_eq!(lines.iter().filter(|line| **line == "gone").count(), 2, "{outcome}");
}

#[test]
fn root_pauses_counts_kills_and_clears_up() {
    let kiln = Kiln::with_busybox();
    check(&in_version_2(&kiln, LIFE), "/kiln/");
}

/// The group of a session that was handed to its user, as systemd's delegation does.
#[test]
fn a_user_does_so_in_a_group_that_was_handed_over() {
    let kiln = Kiln::of(Account::with_subuids()).import_busybox();
    check(&in_version_2(&kiln, LIFE), "/kiln-tests-");
}
