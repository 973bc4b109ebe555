//! Who may do what, over real sockets and with real certificates; and what a client that means harm gets.

mod node;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rcgen::date_time_ymd;
use tempfile::TempDir;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use twinseal_access::{AccessConfig, Limits, Role, TlsConfig, needed};
use twinseal_api::v1;

use node::guarded::*;
use node::on_runtime;

/// Nobody's number.
const NOBODY: u32 = u32::MAX - 7;

#[track_caller]
fn denied(status: &Status, needed: v1::Role, have: v1::Role) {
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let details: v1::AccessDenied = twinseal_api::errors::detail(status).expect("details");
    assert_eq!((details.needed(), details.have()), (needed, have));
}

#[test]
fn roles_on_the_socket_are_enforced_reloaded_and_audited() {
    let access = |role| AccessConfig {
        users: vec![(own_uid(), role)],
        ..Default::default()
    };
    let node = Guarded::start(TempDir::new().expect("a folder"), access(Role::Viewer));
    on_runtime(async {
        let mut client = node.client().await;
        assert_eq!(look(&mut client).await.expect("may look").generation, 0);
        let status = set_vrf(&mut client, "red").await.expect_err("only looks");
        denied(&status, v1::Role::Admin, v1::Role::Viewer);
        assert!(status.message().contains("control.allow_users"), "{status}");
        // The same connection, under other rules.
        let reload = |config| node.config.socket.access.reload(config).expect("sound");
        reload(access(Role::Admin));
        assert_eq!(set_vrf(&mut client, "red").await.expect("may all"), 1);
        let refused = set_vrf(&mut client, "no name").await;
        assert_eq!(
            refused.expect_err("wrong").code(),
            Code::InvalidArgument,
            "the service itself"
        );
        reload(AccessConfig {
            users: vec![(NOBODY, Role::Admin)],
            ..Default::default()
        });
        let status = look(&mut client).await.expect_err("a stranger now");
        denied(&status, v1::Role::Viewer, v1::Role::Unspecified);
        reload(AccessConfig {
            groups: vec![(rustix::process::getegid().as_raw(), Role::Operator)],
            ..Default::default()
        });
        look(&mut client).await.expect("by its group");
        drop(client);
    });
    let audit = node.stop();
    assert_eq!(audit.len(), 2, "{audit:#?}");
    assert_eq!(audit[0]["who"]["uid"], own_uid());
    assert_eq!(audit[0]["role"], "admin");
    assert_eq!(audit[0]["items"][0], "set vrf red");
    assert_eq!(
        (&audit[0]["outcome"], &audit[0]["generation"]),
        (&"done".into(), &1.into())
    );
    assert_eq!(audit[1]["outcome"], "refused");
    assert!(
        audit[1]["reasons"][0]
            .as_str()
            .is_some_and(|it| it.contains("no name"))
    );
}

#[test]
fn supplementary_groups_count() {
    const GROUP: u32 = 42_424;
    let available = Command::new("setpriv").arg("--version").output().is_ok();
    if own_uid() != 0 || !available {
        eprintln!("SKIPPED: needs root and setpriv");
        return;
    }
    let dir = TempDir::new().expect("a folder");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).expect("ours");
    // Where another user may execute it.
    let program = dir.path().join("twinseal");
    std::fs::copy(env!("CARGO_BIN_EXE_twinseal"), &program).expect("it is there");
    let access = AccessConfig {
        users: vec![(0, Role::Admin)],
        groups: vec![(GROUP, Role::Viewer)],
        ..Default::default()
    };
    let node = Guarded::start(dir, access);
    let ctl = |groups: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", groups]);
        command.arg(&program).args(["ctl", "--socket"]);
        let output = command.arg(node.socket()).args(["get", "--json"]).output();
        output.expect("setpriv runs")
    };
    let member = ctl(&format!("--groups={GROUP},7"));
    assert!(member.status.success(), "{member:?}");
    let stranger = ctl("--clear-groups");
    assert_eq!(stranger.status.code(), Some(1));
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(said.contains("control.viewer_users"), "{said}");
}

#[test]
fn clients_are_held_to_their_limits() {
    let limits = Limits {
        message_bytes: 4096,
        requests_per_second: 20,
        streams: 3,
        idle: Duration::from_secs(3),
        ..Default::default()
    };
    let access = AccessConfig {
        users: vec![(own_uid(), Role::Admin)],
        limits,
        ..Default::default()
    };
    let node = Guarded::start(TempDir::new().expect("a folder"), access);
    on_runtime(async {
        let mut client = node.client().await;
        let large = set_vrf(&mut client, &"x".repeat(5000)).await;
        let status = large.expect_err("too large");
        assert_eq!(status.code(), Code::OutOfRange, "{status}");

        // Streams that nobody reads hold their places, and nothing else.
        let mut watches = Vec::new();
        for _ in 0..3 {
            let watch = client.watch(v1::WatchRequest::default()).await;
            watches.push(watch.expect("a place").into_inner());
        }
        let status = look(&mut client).await.expect_err("no place");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(
            status.message().contains("control.limits.streams"),
            "{status}"
        );
        drop(watches);
        wait_for(async || look(&mut client).await.is_ok()).await;

        let mut limited = None;
        for _ in 0..60 {
            if let Err(status) = look(&mut client).await {
                limited = Some(status);
                break;
            }
        }
        let status = limited.expect("sixty at once are too many");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("requests_per_second"), "{status}");

        // A silent one ends.
        let mut silent =
            std::os::unix::net::UnixStream::connect(node.socket()).expect("it listens");
        silent.set_read_timeout(Some(PATIENCE)).expect("a time");
        let ended = tokio::task::spawn_blocking(move || {
            // The server's own settings come first, then its end.
            let mut all = Vec::new();
            silent.read_to_end(&mut all)
        });
        let ended = ended.await.expect("no panic");
        assert!(
            ended.is_ok() || ended.is_err_and(|it| it.kind() != std::io::ErrorKind::WouldBlock)
        );
        wait_for(async || look(&mut client).await.is_ok()).await;

        // All of it was told, in few events.
        let request = v1::WatchRequest {
            from_sequence: Some(1),
            kinds: vec![v1::EventKind::Security.into()],
            ..Default::default()
        };
        let mut events = client.watch(request).await.expect("a place").into_inner();
        loop {
            let event = events.message().await.expect("no error").expect("no end");
            let Some(v1::event::Event::Security(event)) = event.event else {
                panic!("{event:?}");
            };
            let peer = v1::security_event::Owner::Peer(format!("uid {}", own_uid()));
            if event.reason == "rate_limited" && event.owner == Some(peer) && event.count > 0 {
                break;
            }
        }
    });
}

#[test]
fn certificates_say_who_may_do_what() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().to_owned();
    let (ca, other) = (Issuer::new(&path, "ca"), Issuer::new(&path, "other"));
    let node_identity = ca.issue(dns("node.example.org"), false);
    std::fs::write(path.join("node.pem"), &node_identity.certificate).expect("a file");
    write_private(&path.join("node.key"), &node_identity.key);
    let access = tls_config(&path, &ca);
    let address = access.tls.as_ref().expect("it is given").listen;
    let node = Guarded::start(dir, access.clone());
    let admin = ca.issue(uri(ADMIN), false);
    on_runtime(async {
        let mut client = tls_client(address, &ca, Some(&admin)).await.expect("known");
        assert_eq!(set_vrf(&mut client, "red").await.expect("may all"), 1);
        let viewer = ca.issue(dns(VIEWER), false);
        let mut looks = tls_client(address, &ca, Some(&viewer))
            .await
            .expect("known");
        look(&mut looks).await.expect("may look");
        let status = set_vrf(&mut looks, "x").await.expect_err("only looks");
        denied(&status, v1::Role::Admin, v1::Role::Viewer);
        assert!(status.message().contains("control.tls.admins"), "{status}");
        // A sound certificate, for a name that no rule knows.
        let nobody = ca.issue(uri("spiffe://example.org/other"), false);
        let mut nobody = tls_client(address, &ca, Some(&nobody))
            .await
            .expect("TLS is well");
        let status = look(&mut nobody).await.expect_err("no role");
        denied(&status, v1::Role::Viewer, v1::Role::Unspecified);

        for (what, issued) in [
            ("of another issuer", Some(other.issue(uri(ADMIN), false))),
            ("run out", Some(ca.issue(uri(ADMIN), true))),
            ("none", None),
        ] {
            let answer = try_tls(address, &ca, issued.as_ref()).await;
            assert!(answer.is_err(), "{what}: {answer:?}");
        }
        // And the node's own certificate is looked at too.
        assert!(try_tls(address, &other, Some(&admin)).await.is_err());

        // The issuer goes from the bundle: who is connected already has no role any more.
        let reloaded = TlsConfig {
            client_ca: other.file(),
            ..access.tls.clone().expect("it is given")
        };
        let without = AccessConfig {
            tls: Some(reloaded),
            ..access.clone()
        };
        node.config.socket.access.reload(without).expect("sound");
        let status = look(&mut client).await.expect_err("not trusted any more");
        denied(&status, v1::Role::Viewer, v1::Role::Unspecified);
        // No list would help it.
        let told = status.message();
        assert!(
            told.contains("issuer") && !told.contains("add it"),
            "{told}"
        );
        assert!(try_tls(address, &ca, Some(&admin)).await.is_err());
        let new = other.issue(uri(ADMIN), false);
        try_tls(address, &ca, Some(&new))
            .await
            .expect("the new issuer's");
        // What is not sound changes nothing.
        let broken = TlsConfig {
            key: ca.file(),
            ..access.tls.clone().expect("it is given")
        };
        let broken = AccessConfig {
            tls: Some(broken),
            ..access.clone()
        };
        let error = node
            .config
            .socket
            .access
            .reload(broken)
            .expect_err("no key");
        assert!(error.to_string().contains("control.tls.key"), "{error}");
        // Nor does a key that others may read.
        let reload = || node.config.socket.access.reload(access.clone());
        set_mode(&path.join("node.key"), 0o640);
        let error = reload().expect_err("others may read it").to_string();
        let words = ["control.tls.key: ", "has mode 0640", "chmod 600 "];
        assert!(words.iter().all(|it| error.contains(it)), "{error}");
        try_tls(address, &ca, Some(&new)).await.expect("as before");
        set_mode(&path.join("node.key"), 0o600);
    });
    // `ctl` comes in the same way.
    node.config.socket.access.reload(access).expect("sound");
    let (certificate, key) = (path.join("admin.pem"), path.join("admin.key"));
    std::fs::write(&certificate, &admin.certificate).expect("a file");
    write_private(&key, &admin.key);
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_twinseal"));
    ctl.args(["ctl", "get", "--json", "--tls", &address.to_string()]);
    ctl.arg("--tls-ca").arg(ca.file());
    ctl.arg("--tls-cert")
        .arg(&certificate)
        .arg("--tls-key")
        .arg(&key);
    ctl.args(["--tls-name", "node.example.org"]);
    let output = ctl.output().expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    set_mode(&key, 0o640);
    let output = ctl.output().expect("the program starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{output:?}");
    assert!(
        told.contains("--tls-key: ") && told.contains("chmod 600"),
        "{told}"
    );
    let audit = node.stop();
    assert_eq!(audit[0]["who"]["names"][0], ADMIN);
}

#[test]
fn old_tls_and_those_who_say_nothing_are_turned_away() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().to_owned();
    let ca = Issuer::new(&path, "ca");
    let identity = ca.issue(dns("node.example.org"), false);
    std::fs::write(path.join("node.pem"), &identity.certificate).expect("a file");
    write_private(&path.join("node.key"), &identity.key);
    let access = tls_config(&path, &ca);
    let address = access.tls.as_ref().expect("it is given").listen;
    let _node = Guarded::start(dir, access);
    let open = || {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream
    };
    // A ClientHello of TLS 1.2 (RFC 5246), which offers ECDHE with AES-GCM and no later version.
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    let extensions = [
        0x00, 0x0a, 0, 4, 0, 2, 0, 0x17, // supported groups: P-256
        0x00, 0x0d, 0, 4, 0, 2, 4, 3, // signature algorithms: ECDSA with SHA-256
    ];
    hello.extend((extensions.len() as u16).to_be_bytes());
    hello.extend(extensions);
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend((hello.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((hello.len() as u16).to_be_bytes());
    record.extend(hello);
    let mut stream = open();
    stream.write_all(&record).expect("it takes it");
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).expect("an alert");
    assert_eq!(answer[0], 0x15, "an alert: {answer:?}");
    assert_eq!(answer[5..], [2, 70], "fatal, protocol version");

    // Nothing is said: the handshake's time runs out.
    let mut silent = open();
    let mut all = Vec::new();
    let ended = silent.read_to_end(&mut all);
    let timed_out = ended.is_err_and(|it| it.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "the connection was kept");
    // Neither holds up those who are known.
    let known = ca.issue(uri(ADMIN), false);
    on_runtime(try_tls(address, &ca, Some(&known))).expect("known");
}

#[test]
fn whoever_is_refused_over_tls_hears_why() {
    use twinseal_api::client::{Address, Client as Theirs, Error, Tls};

    let dir = TempDir::new().expect("a folder");
    let path = dir.path().to_owned();
    let (ca, other) = (Issuer::new(&path, "ca"), Issuer::new(&path, "other"));
    let node_identity = ca.issue(dns("node.example.org"), false);
    std::fs::write(path.join("node.pem"), &node_identity.certificate).expect("a file");
    write_private(&path.join("node.key"), &node_identity.key);
    let access = tls_config(&path, &ca);
    let address = access.tls.as_ref().expect("it is given").listen;
    let node = Guarded::start(dir, access);
    let usage = |usage| {
        ca.issue_with(uri(ADMIN), |params| {
            params.extended_key_usages = vec![usage];
        })
    };
    let future = ca.issue_with(uri(ADMIN), |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    });
    on_runtime(async {
        let mut events = node
            .client()
            .await
            .watch(v1::WatchRequest {
                kinds: vec![v1::EventKind::Security.into()],
                ..Default::default()
            })
            .await
            .expect("an admin may")
            .into_inner();
        for (issued, words) in [
            (
                ca.issue(uri(ADMIN), true),
                "has expired, or is not valid yet",
            ),
            (future, "has expired, or is not valid yet"),
            (other.issue(uri(ADMIN), false), "control.tls.client_ca"),
            (
                usage(rcgen::ExtendedKeyUsagePurpose::ServerAuth),
                "clientAuth",
            ),
        ] {
            let tls = Tls {
                address: address.to_string(),
                ca: ca.pem().into_bytes(),
                certificate: issued.certificate.into_bytes(),
                key: issued.key.into_bytes().into(),
                name: Some("node.example.org".into()),
            };
            let client = Theirs::connect(Address::Tls(Box::new(tls))).await;
            let error = match client {
                Ok(mut client) => {
                    let refused = client.apply(v1::ApplyRequest::default()).await;
                    refused.expect_err("it is not trusted")
                }
                Err(error) => error,
            };
            assert!(matches!(error, Error::Untrusted(_)), "{words}: {error:?}");
            let told = error.to_string();
            assert!(told.contains("refused our certificate"), "{told}");
            assert!(told.contains(words), "{told}");
        }
        let event = events.message().await.expect("no error").expect("no end");
        let Some(v1::event::Event::Security(told)) = event.event else {
            panic!("{event:?}");
        };
        assert_eq!(told.reason, "tls_refused");
        let Some(v1::security_event::Owner::Peer(peer)) = told.owner else {
            panic!("{told:?}");
        };
        assert!(
            peer.starts_with("a TLS client at 127.0.0.1: its certificate"),
            "{peer}"
        );
    });
}

#[test]
fn the_api_describes_itself() {
    let access = AccessConfig {
        users: vec![(own_uid(), Role::Viewer)],
        ..Default::default()
    };
    let node = Guarded::start(TempDir::new().expect("a folder"), access);
    on_runtime(async {
        use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
        let uri = format!("unix://{}", node.socket().display());
        let channel = Endpoint::try_from(uri).expect("a path").connect().await;
        let mut client = ServerReflectionClient::new(channel.expect("it listens"));
        let request = tonic_reflection::pb::v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let requests = tokio_stream::once(request);
        let answer = client.server_reflection_info(requests).await;
        let mut answers = answer.expect("a viewer may").into_inner();
        let answer = answers.message().await.expect("no error").expect("no end");
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("{answer:?}");
        };
        let names: Vec<_> = list.service.iter().map(|it| it.name.as_str()).collect();
        assert!(names.contains(&"twinseal.v1.Control"), "{names:?}");
        assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
    });
}

#[test]
fn older_clients_find_reflection_and_anybody_health() {
    use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;

    let access = AccessConfig {
        users: vec![(own_uid(), Role::Viewer)],
        ..Default::default()
    };
    let node = Guarded::start(TempDir::new().expect("a folder"), access);
    let uri = format!("unix://{}", node.socket().display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut watch = runtime.block_on(async {
        let channel = Endpoint::try_from(uri).expect("a path").connect().await;
        let channel = channel.expect("it listens");
        let mut client = ServerReflectionClient::new(channel.clone());
        // Types of what errors carry are known too.
        for symbol in ["twinseal.v1.Control", "google.rpc.ErrorInfo"] {
            let request = tonic_reflection::pb::v1alpha::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::FileContainingSymbol(symbol.into())),
            };
            let answer = client.server_reflection_info(tokio_stream::once(request));
            let mut answers = answer.await.expect("a viewer may").into_inner();
            let answer = answers.message().await.expect("no error").expect("no end");
            let found = answer.message_response;
            let found = matches!(found, Some(MessageResponse::FileDescriptorResponse(_)));
            assert!(found, "{symbol}");
        }
        let mut health = HealthClient::new(channel);
        let of = |service: &str| HealthCheckRequest {
            service: service.into(),
        };
        for service in ["", "twinseal.v1.Control"] {
            let answer = health.check(of(service)).await.expect("a viewer may");
            assert_eq!(answer.into_inner().status(), Serving);
        }
        assert!(health.check(of("other")).await.is_err());
        let watch = health.watch(of("twinseal.v1.Control")).await;
        let mut watch = watch.expect("a viewer may").into_inner();
        let now = watch.message().await.expect("no error").expect("no end");
        assert_eq!(now.status(), Serving);
        watch
    });
    // It ends although somebody watches, and tells so.
    let ended = std::thread::spawn(|| drop(node));
    runtime.block_on(async {
        let last = watch.message().await.expect("no error").expect("no end");
        assert_eq!(last.status(), NotServing);
        assert!(watch.message().await.expect("no error").is_none());
    });
    ended.join().expect("it ended");
}

/// The protocol's own words, the table for people and the guard name the same calls for each role.
#[test]
fn what_is_written_of_roles_is_what_the_guard_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("it is there");
    let (proto, table) = (
        read("api/proto/twinseal/v1/control.proto"),
        read("docs/operations.md"),
    );
    let calls: Vec<_> = proto
        .lines()
        .filter_map(|line| line.strip_prefix("  rpc ")?.split('(').next())
        .collect();
    assert!(calls.len() > 10, "{calls:?}");
    let line = |text: &str, begins: &str| {
        let mut lines = text.lines().map(str::trim);
        let line = lines.find(|line| line.starts_with(begins));
        line.expect("there is one").to_owned()
    };
    for (role, in_proto, in_table) in [
        (Role::Viewer, "ROLE_VIEWER", "| viewer |"),
        (Role::Operator, "ROLE_OPERATOR", "| operator |"),
    ] {
        let may: Vec<_> = calls
            .iter()
            .copied()
            .filter(|call| needed(call) == role)
            .collect();
        for written in [line(&proto, in_proto), line(&table, in_table)] {
            let words: Vec<_> = written
                .split(|char: char| !char.is_alphanumeric())
                .collect();
            let named: Vec<_> = calls
                .iter()
                .copied()
                .filter(|call| words.contains(call))
                .collect();
            assert_eq!(named, may, "{written}");
            let others = words.iter().any(|word| word.contains("eflection"));
            assert_eq!(others, role == Role::Viewer, "{written}");
        }
    }
}
