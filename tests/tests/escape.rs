//! Attempts to get out of a container, as root and as an ordinary user: each must fail, and leave the host as it was.

use std::{fs, path::Path, process::Stdio, thread, time::Duration};

use kiln_tests::{Account, Kiln, kiln_binary, run_with_input};
use sha2::{Digest, Sha256};

/// Both ways to run kiln.
fn each(test: impl Fn(&Kiln)) {
    for account in [Account::current(), Account::with_subuids()] {
        test(&Kiln::of(account).import_busybox());
    }
}

/// Runs a shell script in a new container of busybox.
#[track_caller]
fn inside(kiln: &Kiln, options: &[&str], script: &str) -> String {
    let line = ["run", "--rm", "--network", "none"].into_iter().chain(options.iter().copied());
    kiln.try_run(line.chain(["busybox", "sh", "-c", script])).output()
}

/// Each line is an attempt; none may succeed.
#[track_caller]
fn refuses_all(kiln: &Kiln, options: &[&str], attempts: &str) {
    let attempts: Vec<&str> = attempts.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let script: String = attempts
        .iter()
        .enumerate()
        .map(|(at, line)| format!("( {line} ) >/dev/null 2>&1 && echo escaped {at}\n"))
        .collect();
    let said = inside(kiln, options, &format!("{script}echo through"));
    assert_eq!(said, "through\n", "{attempts:#?}");
}

#[test]
fn the_kernels_settings_cannot_be_written() {
    each(|kiln| {
        refuses_all(
            kiln,
            &[],
            "echo x > /proc/sys/kernel/core_pattern
             echo 1 > /proc/sys/vm/drop_caches
             echo h > /proc/sysrq-trigger
             echo x > /proc/sys/kernel/hostname
             echo 0 > /proc/irq/default_smp_affinity
             echo x > /sys/kernel/uevent_helper
             echo 0 > /sys/kernel/profiling
             touch /sys/fs/cgroup/x
             mkdir /sys/fs/cgroup/x
             test -s /proc/kcore
             test -s /proc/keys
             test -s /proc/timer_list
             test -n \"$(ls -A /sys/firmware)\"
             umount /proc/sys
             umount /proc
             mount -o remount,rw /proc/sys
             mount -o remount,rw /sys
             dmesg",
        );
    });
}

#[test]
fn nothing_is_mounted_and_no_namespace_is_made() {
    each(|kiln| {
        refuses_all(
            kiln,
            &["--tmpfs", "/mnt"],
            "mount -t tmpfs none /mnt
             mount -t proc none /mnt
             mount -t sysfs none /mnt
             mount -t cgroup none /mnt
             mount -o bind / /mnt
             mount --move /proc /mnt
             unshare -m true
             unshare -U true
             unshare -n true
             unshare -p -f true
             nsenter -t 1 -m -p true
             pivot_root / /mnt
             losetup /dev/loop0 /etc/passwd
             hwclock -w
             reboot -f
             swapon /etc/passwd
             insmod /etc/passwd",
        );
    });
}

/// The disk that the host's root is on, by its numbers.
fn disk() -> (String, String) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    let (major, minor) = root.split(' ').nth(2).unwrap().split_once(':').unwrap();
    (major.to_owned(), minor.to_owned())
}

#[test]
fn device_nodes_of_ones_own_do_not_work() {
    let (major, minor) = disk();
    each(|kiln| {
        let disk = format!("mknod /disk b {major} {minor}; dd if=/disk of=/dev/null bs=512 count=1");
        let volume = format!("mknod /v/disk b {major} {minor}; dd if=/v/disk of=/dev/null bs=512 count=1");
        let memory = "mknod /dev/mem2 c 1 1; dd if=/dev/mem2 of=/dev/null bs=1 count=1";
        let messages = "mknod /kmsg c 1 11 && echo x > /kmsg";
        refuses_all(
            kiln,
            &["-v", "vol:/v"],
            &format!("{disk}\n{volume}\n{memory}\n{messages}\nls /dev/sda /dev/vda /dev/kmsg"),
        );
        let listed = inside(kiln, &[], "ls /dev");
        let allowed = "console core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
        assert!(listed.split_whitespace().all(|name| allowed.split(' ').any(|known| known == name)), "{listed}");
    });
}

#[test]
fn processes_of_the_host_are_out_of_reach() {
    each(|kiln| {
        let mut victim = std::process::Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let pid = victim.id();
        refuses_all(
            kiln,
            &["--cap-add", "SYS_PTRACE", "--cap-add", "KILL"],
            &format!(
                "kill -9 {pid}\nls /proc/{pid}\ncat /proc/{pid}/mem\nls /proc/1/root/proc/{pid}\nnsenter -t {pid} -m true"
            ),
        );
        let seen = inside(kiln, &[], "ls -d /proc/[0-9]* | wc -l");
        assert!(seen.trim().parse::<u32>().unwrap() < 5, "{seen}");
        assert!(matches!(victim.try_wait(), Ok(None)), "it lives");
        victim.kill().unwrap();
        victim.wait().unwrap();
    });
}

/// A descriptor that kiln forgot would lead to the host, by its name or as the working directory.
#[test]
fn no_descriptor_is_left_open() {
    each(|kiln| {
        let marker = kiln.context(&[("marker", "secret\n")]);
        let path = marker.path().join("marker");
        let script = "ls /proc/self/fd | wc -l; ls -l /proc/self/fd 2>/dev/null | grep -e ' -> ' | grep -v -e /proc/ -e pipe: -e /dev/null";
        let seen = inside(kiln, &[], script);
        assert_eq!(seen.trim(), "4", "streams, and the directory that is listed");
        kiln.run(["run", "-d", "--network", "none", "--name", "box", "busybox", "sleep", "1000"]);
        let seen = kiln.try_run(["exec", "box", "sh", "-c", script]).output();
        assert_eq!(seen.trim(), "4", "in exec too");
        let climb =
            format!("cat ../../../../../../../../..{0}; cat /proc/self/cwd/../../../../../../..{0}", path.display());
        for number in 3..16 {
            let directory = format!("/proc/self/fd/{number}");
            let said = inside(kiln, &["-w", &directory], &climb);
            assert!(!said.contains("secret"), "run -w {directory}: {said}");
            let said = kiln.try_run(["exec", "-w", &directory, "box", "sh", "-c", &climb]).output();
            assert!(!said.contains("secret"), "exec -w {directory}: {said}");
        }
    });
}

fn hash(path: &Path) -> Vec<u8> {
    Sha256::digest(fs::read(path).unwrap()).to_vec()
}

/// The processes of kiln that show in a container are not a way to kiln's own file.
#[test]
fn the_binary_is_not_overwritten_by_way_of_proc() {
    let binary = kiln_binary();
    let before = hash(&binary);
    each(|kiln| {
        kiln.build_text("FROM busybox\nRUN printf '#!/proc/self/exe\\n' > /evil && chmod 755 /evil\n", "evil");
        refuses_all(
            kiln,
            &["--init"],
            "echo x >> /proc/1/exe
             exec 9</proc/1/exe; echo x >> /proc/self/fd/9
             cp /bin/busybox /proc/1/exe
             chmod 777 /proc/1/exe
             mount -o remount,rw /proc/1/exe",
        );
        kiln.try_run(["run", "--rm", "--network", "none", "evil", "/evil"]).failure();
        kiln.run(["run", "-d", "--network", "none", "--name", "box", "evil", "sleep", "1000"]);
        // Somebody inside waits for kiln to come by, and tries to write to what it is.
        let wait = "while :; do for one in /proc/[0-9]*; do case $(readlink $one/exe) in */busybox|'') ;; \
                    *) exec 9<$one/exe; echo x >> /proc/self/fd/9 && echo x > /escaped; exec 9<&- ;; esac; done; done";
        kiln.run(["exec", "-d", "box", "sh", "-c", wait]);
        for _ in 0..20 {
            kiln.try_run(["exec", "box", "/evil"]).failure();
            kiln.try_run(["exec", "box", "/proc/self/exe", "--help"]);
        }
        kiln.try_run(["exec", "box", "test", "-e", "/escaped"]).code(1);
    });
    assert_eq!(hash(&binary), before);
}

/// An image's own files are looked at before anything runs in it: they are data of somebody else.
#[test]
fn an_image_with_malicious_files_is_only_an_image() {
    each(|kiln| {
        let marker = kiln.context(&[("marker", "root:x:0:0::/:\nsecret:x:7:7::/secret:\n")]);
        let path = marker.path().join("marker").display().to_string();
        for (image, target) in [("links", path.clone()), ("relative", format!("../../../../../../..{path}"))] {
            let context =
                kiln.context(&[("Dockerfile", "FROM busybox\nRUN rm -f /etc/passwd /etc/group\nCOPY etc /etc\n")]);
            context.shell(&format!(
                "mkdir etc; for name in passwd group hostname hosts resolv.conf; do ln -s {target} etc/$name; done"
            ));
            kiln.build(&context, image, &[]);
        }
        for image in ["links", "relative"] {
            // A user that only the host's file has is not found.
            kiln.try_run(["run", "--rm", "--network", "none", "-u", "secret", image, "true"]).failure();
            let script =
                "echo overwritten > /etc/hostname; echo overwritten > /etc/hosts; echo overwritten > /etc/resolv.conf";
            kiln.try_run(["run", "--rm", "--network", "none", image, "sh", "-c", script]);
            assert!(fs::read_to_string(&path).unwrap().contains("secret"), "{image}");
        }
        // A pipe that nobody writes to, a file without end, and a directory.
        for make in ["mkfifo", "ln -s /dev/zero", "mkdir"] {
            kiln.build_text(&format!("FROM busybox\nRUN rm /etc/passwd && {make} /etc/passwd\n"), "stuck");
            kiln.try_run(["run", "--rm", "--network", "none", "-u", "nobody", "stuck", "true"]).failure();
            kiln.try_run(["run", "--rm", "--network", "none", "-u", "0", "stuck", "true"]);
        }
        let seen = fs::read_to_string("/etc/hostname").unwrap_or_default();
        inside(kiln, &["-v", "/etc/hostname:/h:ro"], "echo x > /h; rm -f /h");
        assert_eq!(fs::read_to_string("/etc/hostname").unwrap_or_default(), seen);
    });
}

/// Volumes and copies follow links inside the container only, however fast they are exchanged.
#[test]
fn copies_and_volumes_stay_inside_while_links_are_exchanged() {
    each(|kiln| {
        let outside = kiln.context(&[("file", "untouched\n"), ("secret", "secret\n")]);
        let place = outside.path().display().to_string();
        let race = format!(
            "mkdir -p /real /v/real {place}; echo mine > {place}/secret; ln -sfn {place} /away; \
             while :; do ln -sfn /real /next; mv -T /next /place; ln -sfn {place} /next; mv -T /next /place; \
             rm -rf /v/place; mkdir /v/place; rm -rf /v/place; ln -s {place} /v/place; done"
        );
        kiln.run(["run", "-d", "--network", "none", "--name", "racer", "-v", "vol:/v", "busybox", "sh", "-c", &race]);
        thread::sleep(Duration::from_millis(300));
        let source = kiln.context(&[("file", "overwritten\n"), ("tree/file", "overwritten\n")]);
        let from = |name: &str| source.path().join(name).display().to_string();
        let out = kiln.directory();
        for round in 0..15 {
            for target in ["racer:/place", "racer:/place/file", "racer:/away/file", "racer:/v/place/file"] {
                kiln.try_run(["cp", &from("file"), target]);
            }
            kiln.try_run(["cp", &format!("{}/.", from("tree")), "racer:/place"]);
            let target = out.path().join(format!("{round}")).display().to_string();
            kiln.try_run(["cp", "racer:/place/secret", &target]);
            let copied = fs::read_to_string(&target).unwrap_or_default();
            assert!(!copied.contains("secret"), "round {round}");
            assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "untouched\n", "round {round}");
        }
        // A volume that holds a link is mounted as it is.
        kiln.try_run([
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            "vol:/v",
            "busybox",
            "sh",
            "-c",
            "echo x > /v/place/file",
        ]);
        assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "untouched\n");
        // A mount point that is a link of the image's stays inside, too.
        kiln.build_text(&format!("FROM busybox\nRUN ln -s {place} /link\n"), "linked");
        kiln.run([
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            "links:/link",
            "linked",
            "sh",
            "-c",
            "echo x > /link/file",
        ]);
        assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "untouched\n");
        // An archive that climbs.
        let mut archive = tar::Builder::new(Vec::new());
        for name in ["../../../../../../climbed", "/climbed"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            header.set_mode(0o644);
            let bytes = name.as_bytes();
            header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
            header.set_cksum();
            archive.append(&header, &b"x"[..]).unwrap();
        }
        let archive = archive.into_inner().unwrap();
        let _ = run_with_input(kiln.command(["cp", "-", "racer:/real"]), &archive).no_panic();
        assert!(!Path::new("/climbed").exists());
    });
}
