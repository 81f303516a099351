//! Networks: bridges, published ports, names, as docker's; as root and as an ordinary user.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use kiln_tests::{Account, Kiln, free_port};

const PATIENCE: Duration = Duration::from_secs(60);

/// As root, and as a user with subordinate ids.
fn everybody() -> [Kiln; 2] {
    [Kiln::with_busybox(), Kiln::of(Account::with_subuids()).import_busybox()]
}

/// Asks until there is an answer: a server needs a moment to start.
#[track_caller]
fn get(address: impl Into<IpAddr>, port: u16) -> String {
    let address = SocketAddr::new(address.into(), port);
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let began = Instant::now();
    loop {
        match ask() {
            Ok(text) if text.contains("200 OK") => return text,
            other => assert!(began.elapsed() < PATIENCE, "{address} does not answer: {other:?}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

/// A web server in the background that says a word.
fn serve(kiln: &Kiln, name: &str, options: &[&str]) {
    let script = format!("echo {name} speaks > /index.html; exec httpd -f -p 80 -h /");
    let mut line = vec!["run", "-d", "--name", name];
    line.extend(options);
    line.extend(["busybox", "sh", "-c", &script]);
    kiln.run(line);
}

/// What a container of a network reads from a server, asked for until it answers.
#[track_caller]
fn fetch(kiln: &Kiln, network: &str, host: &str) -> String {
    let script =
        format!("for i in $(seq 200); do wget -qO- http://{host}/index.html && exit; sleep 0.05; done; exit 1");
    kiln.run(["run", "--rm", "--network", network, "busybox", "sh", "-c", &script]).stdout
}

/// The bridge of a network is an interface that begins with the network's id.
fn bridge(kiln: &Kiln, network: &str) -> String {
    let id = kiln.run(["network", "inspect", "-f", "{{.Id}}", network]).stdout;
    format!("/sys/class/net/kiln-{}", &id.trim()[..10])
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_published_port_answers_at_loopback_and_at_the_hosts_addresses() {
    for kiln in everybody() {
        let port = free_port();
        let publish = format!("{port}:80");
        serve(&kiln, "web", &["-p", &publish]);
        assert!(get(LOOPBACK, port).contains("web speaks"));
        assert!(get([0_u16, 0, 0, 0, 0, 0, 0, 1], port).contains("web speaks"));
        if let Some(own) = own_address() {
            assert!(get(own, port).contains("web speaks"));
        }
        let ports = kiln.run(["port", "web"]);
        assert!(ports.stdout.starts_with(&format!("80/tcp -> 0.0.0.0:{port}\n")), "{ports}");
        assert!(kiln.run(["port", "web", "80"]).stdout.starts_with(&format!("0.0.0.0:{port}\n")));
        kiln.try_run(["port", "web", "81"]).code(1).says("No public port '81/tcp' published for web");
        kiln.run(["ps"]).says(&format!("0.0.0.0:{port}->80/tcp"));
        let taken = kiln.try_run(["run", "-d", "-p", &publish, "busybox", "true"]).code(125);
        taken.says(&format!(":{port}")).says("Address already in use");
        kiln.run(["rm", "-f", "web"]);
        // It is free again.
        drop(TcpListener::bind(("0.0.0.0", port)).unwrap());
    }
}

/// The address that this machine speaks to others with, if it has one. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

#[test]
fn a_container_is_on_the_default_bridge_with_an_address_of_its_own() {
    for kiln in everybody() {
        let outcome =
            kiln.run(["run", "--rm", "busybox", "sh", "-c", "ip -4 addr show eth0; ip route; cat /etc/hosts"]);
        let subnet =
            kiln.run(["network", "inspect", "bridge", "-f", "{{range .IPAM.Config}}{{.Gateway}}{{end}}"]).stdout;
        assert!(outcome.stdout.contains(&format!("default via {}", subnet.trim())), "{outcome}");
        kiln.run(["run", "--rm", "--network", "bridge", "busybox", "ip", "addr", "show", "eth0"]).says("inet 10.");
    }
}

#[test]
fn containers_of_a_network_find_each_other_by_name_and_by_alias() {
    for kiln in everybody() {
        kiln.run(["network", "create", "inside"]);
        serve(&kiln, "one", &["--network", "inside", "--network-alias", "first"]);
        for host in ["one", "first", "one.inside", "ONE"] {
            assert_eq!(fetch(&kiln, "inside", host), "one speaks\n", "{host}");
        }
        // Another network does not know it.
        kiln.run(["network", "create", "outside"]);
        let script = "nslookup one 2>&1";
        kiln.try_run(["run", "--rm", "--network", "outside", "busybox", "sh", "-c", script]).failure();
        // Somebody new is found by those who are there already.
        serve(&kiln, "two", &["--network", "inside"]);
        let script = "for i in $(seq 200); do wget -qO- http://two/index.html && exit; sleep 0.05; done; exit 1";
        assert_eq!(kiln.run(["exec", "one", "sh", "-c", script]).stdout, "two speaks\n");
        kiln.run(["rename", "two", "three"]);
        kiln.run(["exec", "one", "wget", "-qO-", "http://three/index.html"]).says("two speaks");
        kiln.run(["rm", "-f", "one", "three"]);
        kiln.run(["network", "rm", "inside", "outside"]);
    }
}

#[test]
fn another_containers_network_is_shared() {
    for kiln in everybody() {
        kiln.run(["network", "create", "net"]);
        serve(&kiln, "owner", &["--network", "net"]);
        fetch(&kiln, "net", "owner");
        let line = ["run", "--rm", "--network", "container:owner", "busybox", "sh", "-c"];
        let script = "hostname; wget -qO- http://127.0.0.1/index.html";
        let guest = kiln.run(line.iter().copied().chain([script])).stdout;
        let owner = kiln.run(["exec", "owner", "hostname"]).stdout;
        assert_eq!(guest, format!("{owner}owner speaks\n"));
        kiln.run(["rm", "-f", "owner"]);
        kiln.try_run(line.iter().copied().chain(["true"])).code(125).says("owner");
    }
}

#[test]
fn udp_ranges_and_all_exposed_ports_are_published() {
    let kiln = Kiln::with_busybox();
    let port = free_port();
    // busybox speaks no UDP; every Debian has a perl.
    let echo = "socket(S, 2, 2, 0); bind(S, pack('Sna4x8', 2, 5353, '')); \
                while ($from = recv(S, $word, 64, 0)) { send(S, \"got $word\", 0, $from) }";
    let libraries = ["-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro"];
    let publish = format!("127.0.0.1:{port}:5353/udp");
    let line = ["run", "-d", "--name", "udp", "-p", &publish].into_iter().chain(libraries);
    kiln.run(line.chain(["busybox", "/usr/bin/perl", "-e", echo]));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = [0; 64];
    until("an answer by UDP", || {
        socket.send_to(b"word\n", ("127.0.0.1", port)).unwrap();
        socket.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == b"got word\n")
    });
    let all =
        ["run", "-d", "--name", "all", "-P", "--expose", "80", "--expose", "90-91/udp", "busybox", "sleep", "1000"];
    kiln.run(all);
    let ports = kiln.run(["port", "all"]).stdout;
    for port in ["80/tcp -> 0.0.0.0:", "90/udp -> 0.0.0.0:", "91/udp -> 0.0.0.0:"] {
        assert!(ports.contains(port), "{ports}");
    }
    // One free port of a range.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let first = taken.local_addr().unwrap().port();
    let range = format!("127.0.0.1:{first}-{}:80", first.saturating_add(50));
    serve(&kiln, "range", &["-p", &range]);
    let found = kiln.run(["port", "range", "80/tcp"]).stdout;
    let found: u16 = found.trim().rsplit(':').next().unwrap().parse().unwrap();
    assert!(found > first);
    get(LOOPBACK, found);
    kiln.try_run(["run", "--rm", "-p", "80:x", "busybox", "true"]).code(125).says("80:x");
}

#[test]
fn addresses_are_given_as_asked() {
    let kiln = Kiln::with_busybox();
    let subnet = |third: u8| format!("10.{}.{third}.0/24", 200 + std::process::id() % 50);
    let (own, other) = (subnet(1), subnet(2));
    let address = |last: u8| own.replace(".0/24", &format!(".{last}"));
    let range = own.replace(".0/24", ".128/25");
    let (gateway, wanted) = (address(254), address(9));
    let create = ["network", "create", "--subnet", &own, "--gateway", &gateway, "--ip-range", &range];
    kiln.run(create.iter().copied().chain(["--label", "a=b", "chosen"]));
    let show = ["ip", "-4", "addr", "show", "eth0"];
    let run = |options: &[&str]| {
        let line = ["run", "--rm", "--network", "chosen"].into_iter().chain(options.iter().copied());
        kiln.try_run(line.chain(["busybox"]).chain(show).collect::<Vec<_>>())
    };
    run(&[]).success().says(&format!("inet {}/24", address(129)));
    run(&["--ip", &wanted]).success().says(&format!("inet {wanted}/24"));
    run(&["--ip", &other.replace(".0/24", ".9")]).code(125).says("is not in the subnet");
    run(&["--ip", &gateway]).code(125).says("already in use");
    run(&["--mac-address", "02:42:00:00:00:07"]).success();
    kiln.try_run(["run", "--rm", "--ip", &wanted, "busybox", "true"]).code(125).says("user defined networks");
    kiln.try_run(["network", "create", "--subnet", &own, "again"]).code(1).says("overlaps");
    kiln.try_run(["network", "create", "chosen"]).code(1).says("already exists");
    kiln.try_run(["network", "create", "-d", "macvlan", "x1"]).code(1).says("macvlan");
    kiln.try_run(["network", "rm", "bridge"]).code(1).says("pre-defined");
    let inspected = kiln.run(["network", "inspect", "chosen", "-f", "{{json .IPAM.Config}} {{.Labels.a}}"]).stdout;
    assert!(inspected.contains(&gateway) && inspected.trim().ends_with(" b"), "{inspected}");
    let names = |filter: &str| kiln.run(["network", "ls", "--format", "{{.Name}}", "-f", filter]).stdout;
    assert_eq!(names("label=a"), "chosen\n");
    assert_eq!(names("type=builtin"), "bridge\nhost\nnone\n");
    assert_eq!(names("driver=null"), "none\n");
    kiln.run(["network", "create", "idle"]);
    assert_eq!(names("dangling=true"), "chosen\nidle\n");
    let pruned = kiln.run(["network", "prune", "-f", "--filter", "label!=a"]).stdout;
    assert_eq!(pruned, "Deleted Networks:\nidle\n\n");
    assert_eq!(kiln.run(["network", "ls", "-q"]).stdout.lines().count(), 4);
}

#[test]
fn an_internal_network_leads_nowhere() {
    for kiln in everybody() {
        kiln.run(["network", "create", "--internal", "cell"]);
        let outcome = kiln.run(["run", "--rm", "--network", "cell", "busybox", "ip", "route"]);
        assert!(!outcome.stdout.contains("default"), "{outcome}");
        serve(&kiln, "mate", &["--network", "cell"]);
        assert_eq!(fetch(&kiln, "cell", "mate"), "mate speaks\n");
    }
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    for kiln in everybody() {
        kiln.run(["network", "create", "first"]);
        kiln.run(["network", "create", "second"]);
        serve(&kiln, "mover", &["--network", "first"]);
        kiln.run(["network", "connect", "--alias", "guest", "second", "mover"]);
        assert_eq!(fetch(&kiln, "second", "guest"), "mover speaks\n");
        kiln.try_run(["network", "rm", "second"]).code(1).says("mover");
        kiln.try_run(["network", "connect", "second", "mover"]).code(1).says("already");
        kiln.run(["network", "disconnect", "first", "mover"]);
        kiln.run(["exec", "mover", "sh", "-c", "! ip link show eth0 2>/dev/null && ip link show eth1"]);
        // It stays so when it starts again.
        kiln.run(["restart", "-t", "0", "mover"]);
        assert_eq!(fetch(&kiln, "second", "guest"), "mover speaks\n");
        kiln.try_run(["network", "disconnect", "first", "mover"]).code(1).says("not connected");
        kiln.run(["network", "rm", "first"]);
    }
}

#[test]
fn names_and_servers_are_written_down() {
    let kiln = Kiln::with_busybox();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.accept().map(|(mut client, _)| client.write_all(b"reached\n")));
    let line = ["run", "--rm", "--add-host", "up:host-gateway", "--add-host", "there:192.0.2.7"];
    let servers = ["--dns", "192.0.2.53", "--dns-search", "example.org", "--dns-option", "ndots:2"];
    let script = format!("cat /etc/hosts /etc/resolv.conf; nc up {port} </dev/null");
    let line = line.iter().chain(&servers).copied().chain(["busybox", "sh", "-c", &script]);
    let outcome = kiln.run(line);
    for text in
        ["192.0.2.7\tthere\n", "nameserver 192.0.2.53\n", "search example.org\n", "options ndots:2\n", "reached\n"]
    {
        assert!(outcome.stdout.contains(text), "{text}: {outcome}");
    }
    let host = ["run", "--rm", "--network", "host", "--add-host", "there:192.0.2.7", "busybox", "cat", "/etc/hosts"];
    kiln.run(host).says("192.0.2.7\tthere");
    kiln.try_run(["run", "--rm", "--add-host", "nothing", "busybox", "true"]).code(125).says("nothing");
    let published = kiln.run(["run", "--rm", "--network", "host", "-p", "80:80", "busybox", "true"]);
    assert!(published.stderr.contains("Published ports are discarded"), "{published}");
}

#[test]
fn a_bridge_goes_with_its_last_container() {
    let kiln = Kiln::with_busybox();
    kiln.run(["network", "create", "brief"]);
    let bridge = bridge(&kiln, "brief");
    let bridge = Path::new(&bridge);
    serve(&kiln, "a1", &["--network", "brief"]);
    serve(&kiln, "a2", &["--network", "brief"]);
    assert!(bridge.exists());
    kiln.run(["rm", "-f", "a1"]);
    assert!(bridge.exists());
    kiln.run(["rm", "-f", "a2"]);
    until("the bridge is gone", || !bridge.exists());
}

/// Whoever holds a container is killed, and so is the helper that serves its ports: the next command just goes on.
#[test]
fn what_a_kill_leaves_is_cleaned_by_the_next_container() {
    for kiln in everybody() {
        let port = free_port();
        let publish = format!("{port}:80");
        kiln.run(["network", "create", "net"]);
        for round in 0..3 {
            serve(&kiln, "victim", &["--network", "net", "-p", &publish]);
            get(LOOPBACK, port);
            let users = kiln.run(["network", "inspect", "net", "-f", "{{json .Containers}}"]).stdout;
            assert!(users.contains("victim"), "round {round}: {users}");
            kill_supervisor(&kiln);
            until("the port is free", || TcpListener::bind(("0.0.0.0", port)).is_ok());
            let users = kiln.run(["network", "inspect", "net", "-f", "{{json .Containers}}"]).stdout;
            assert_eq!(users, "{}\n", "round {round}");
            kiln.run(["rm", "victim"]);
        }
        // The dead one's address and name are free again, and so is the network.
        serve(&kiln, "next", &["--network", "net"]);
        let address = kiln.run(["exec", "next", "ip", "-4", "addr", "show", "eth0"]);
        let gateway = kiln.run(["network", "inspect", "net", "-f", "{{range .IPAM.Config}}{{.Gateway}}{{end}}"]).stdout;
        let first = gateway.trim().rsplit_once('.').unwrap().0.to_owned() + ".2/";
        assert!(address.stdout.contains(&first), "{address}");
        kiln.run(["rm", "-f", "next"]);
        kiln.run(["network", "rm", "net"]);
    }
}

/// The process that holds the only container of this store, which has its lock open.
fn kill_supervisor(kiln: &Kiln) {
    let root = kiln.root().join("containers");
    let holders = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let files = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        comm.starts_with("kiln-container")
            && files.filter_map(|file| fs::read_link(file.path()).ok()).any(|path| path.starts_with(&root))
    });
    let pids: Vec<i32> = holders.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    assert_eq!(pids.len(), 1, "{pids:?}");
    let pid = rustix::process::Pid::from_raw(pids[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// IPv6 beside IPv4, where a network was made with it.
#[test]
fn a_network_with_ipv6_has_its_addresses_names_and_routes() {
    for (account, own) in [(Account::current(), "fd6b:1"), (Account::with_subuids(), "fd6b:2")] {
        let kiln = Kiln::of(account).import_busybox();
        let (subnet, gateway) = (format!("{own}::/64"), format!("{own}::99"));
        kiln.run(["network", "create", "--ipv6", "--subnet", &subnet, "--gateway", &gateway, "six"]);
        kiln.run(["network", "inspect", "-f", "{{.EnableIPv6}} {{json .IPAM.Config}}", "six"])
            .says("true")
            .says(&subnet);
        let asked = format!("{own}::7");
        let serve = "echo by six > /index.html; exec httpd -f -p [::]:80 -h /";
        let line = ["run", "-d", "--name", "server", "--network", "six", "--ip6", &asked, "busybox", "sh", "-c", serve];
        kiln.run(line);
        let address = "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}";
        assert_eq!(kiln.run(["inspect", "-f", address, "server"]).text(), asked);
        let fetch = format!(
            "for i in $(seq 100); do wget -qO- http://[{asked}]/ && break; sleep 0.05; done; \
             ping -6 -c 1 -W 5 server >/dev/null && echo named; ping -6 -c 1 -W 5 {gateway} >/dev/null && echo host; \
             ip -6 route show default; grep -c {own}:: /etc/hosts"
        );
        let client = kiln.run(["run", "--rm", "--network", "six", "busybox", "sh", "-c", &fetch]);
        let route = format!("default via {gateway} dev eth0");
        assert!(client.stdout.starts_with("by six\nnamed\nhost\n"), "{client}");
        assert!(client.stdout.contains(&route) && client.stdout.ends_with("\n1\n"), "{client}");
        let taken = ["run", "--rm", "--network", "six", "--ip6", &asked, "busybox", "true"];
        kiln.try_run(taken).code(125).says("already in use");
        let outside = ["run", "--rm", "--network", "six", "--ip6", "fd6b:3::1", "busybox", "true"];
        kiln.try_run(outside).code(125).says("not in the subnet");
        kiln.try_run(["run", "--rm", "--ip6", "fd6b:3::1", "busybox", "true"]).code(125).says("without --ipv6");
        // One that could not be plugged in leaves no bridge behind.
        let default = kiln.run(["network", "inspect", "-f", "{{.Id}}", "bridge"]);
        let bridge = format!("/sys/class/net/kiln-{}", &default.text()[..10]);
        until("the bridge has gone", || !Path::new(&bridge).exists());
        kiln.try_run(["network", "create", "--subnet", &subnet, "again"]).code(1).says("overlaps");
        // One is found when none is given; another container joins while it runs.
        kiln.run(["network", "create", "--ipv6", "found"]);
        kiln.run(["network", "connect", "found", "server"]);
        let found = "{{.NetworkSettings.Networks.found.GlobalIPv6Address}}";
        assert!(kiln.run(["inspect", "-f", found, "server"]).text().starts_with("fd"));
        kiln.run(["exec", "server", "ip", "-6", "addr", "show", "eth1"]).says("scope global");
        kiln.run(["rm", "-f", "server"]);
        kiln.run(["network", "rm", "six", "found"]);
    }
}

/// The old way to find a neighbour on the default network, where names are not resolved.
#[test]
fn a_link_is_another_name_for_a_neighbour() {
    for kiln in everybody() {
        serve(&kiln, "database", &[]);
        // A static busybox asks no hosts file.
        let script = "for name in db database; do place=$(awk -v name=$name '$2 == name { print $1 }' /etc/hosts); \
                      for i in $(seq 200); do wget -qO- http://$place/index.html && break; sleep 0.05; done; done";
        let line = ["create", "--name", "web", "--link", "database:db", "busybox", "sh", "-c", script];
        kiln.run(line);
        assert_eq!(kiln.run(["start", "-a", "web"]).stdout, "database speaks\ndatabase speaks\n");
        kiln.run(["inspect", "-f", "{{.HostConfig.Links}}", "web"]).says("[/database:/web/db]");
        kiln.run(["rm", "-f", "database"]);
        kiln.try_run(["start", "-a", "web"]).code(1).says("No such container: database");
        kiln.run(["create", "--name", "idle", "busybox"]);
        kiln.try_run(["run", "--rm", "--link", "idle", "busybox", "true"]).code(125).says("it does not run");
        kiln.try_run(["run", "--rm", "--link", ":x", "busybox", "true"]).code(125).says("invalid link");
    }
}
