//! The state directory: who makes it, what happens when its disk is full, and the control socket beside it.

mod node;

use tempfile::TempDir;
use twinseal_api::v1::{self, item::Item};
use twinseal_server::NodeConfig;

use node::*;

/// As a cleaner of /run does.
#[test]
fn a_socket_that_somebody_removes_is_told_and_made_again() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let path = &config.socket.path;
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let watch = client.watch(v1::WatchRequest::default()).await;
        let mut reader = watch.expect("it tells").into_inner();
        for _ in 0..2 {
            std::fs::remove_file(path).expect("it is there");
            let told = fault(&mut reader, "control_socket_gone").await;
            assert!(told.contains("SIGHUP"), "{told}");
            assert!(!path.exists(), "nobody asked yet");
            // What the handler of SIGHUP does.
            config.reopen.ask();
            while !path.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            get(&mut connect(&config).await).await;
        }
    });
    node.stop();
    assert!(!path.exists(), "the new one goes with the node");
}

#[test]
fn a_state_directory_is_made_once_and_by_somebody() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().expect("a folder");
    let state = dir.path().join("deep").join("in").join("state");
    let file = dir.path().join("node.toml");
    let text = format!("state_dir = {state:?}\n[node]\nname = \"n\"\n");
    std::fs::write(&file, text).expect("a file");
    let init = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_twinseal"));
        let output = command
            .arg("init")
            .args(arguments)
            .output()
            .expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let by_config = ["--config", file.to_str().expect("text")];
    let (code, told) = init(&by_config);
    assert_eq!(code, Some(0), "{told}");
    let mode = |path: &std::path::Path| {
        let found = std::fs::symlink_metadata(path).expect("it is made");
        found.permissions().mode() & 0o777
    };
    assert_eq!(mode(&state), 0o700);
    for name in ["burned", "mac.key", "newest", "lock"] {
        assert_eq!(mode(&state.join(name)), 0o600, "{name}");
    }
    // In a unit file it would make what is merely not mounted: so it does not stand being there for every start.
    let before = std::fs::read(state.join("burned")).expect("readable");
    for arguments in [
        &by_config[..],
        &["--state-dir", state.to_str().expect("text")],
    ] {
        let (code, told) = init(arguments);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("was initialised already"), "{told}");
    }
    assert_eq!(
        std::fs::read(state.join("burned")).expect("readable"),
        before
    );
    let link = dir.path().join("link");
    std::fs::remove_file(state.join("burned")).expect("it is there");
    std::fs::write(&link, before).expect("a file");
    std::os::unix::fs::symlink(&link, state.join("burned")).expect("free");
    let config = NodeConfig {
        state_dir: state.clone(),
        ..config(dir.path(), "n")
    };
    let _node = Node::start(config.clone()).expect("it shows itself");
    on_runtime(async {
        let told = get(&mut connect(&config).await).await.secrets_refused;
        assert!(told.contains("is no file, or a link to one"), "{told}");
    });
    // Nor is a folder in it that leads elsewhere.
    let (other, elsewhere) = (dir.path().join("other"), dir.path().join("elsewhere"));
    let (code, told) = init(&["--state-dir", other.to_str().expect("text")]);
    assert_eq!(code, Some(0), "{told}");
    std::fs::create_dir(&elsewhere).expect("free");
    std::os::unix::fs::symlink(&elsewhere, other.join("tables")).expect("free");
    let led = NodeConfig {
        state_dir: other,
        ..self::config(dir.path(), "led")
    };
    let _led = Node::start(led.clone()).expect("it shows itself");
    on_runtime(async {
        let told = get(&mut connect(&led).await).await;
        let refused = told.secrets_refused;
        assert!(
            refused.contains("is no directory, or a link to one"),
            "{refused}"
        );
        let stored = told.tables_not_stored;
        assert!(stored.contains("cannot be used"), "{stored}");
    });
    assert_eq!(std::fs::read_dir(&elsewhere).expect("a folder").count(), 0);
    // Who is told that it is in use is told by whom.
    let (code, told) = init(&[
        "--secrets-replaced",
        "--state-dir",
        state.to_str().expect("text"),
    ]);
    assert_eq!(code, Some(1));
    assert!(
        told.contains(&format!("in use by process {}", std::process::id())),
        "{told}"
    );
}

/// A file system of its own; goes with this.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_disk_that_was_full_for_a_moment_needs_nobody() {
    let dir = TempDir::new().expect("a folder");
    let mount = dir.path().join("n");
    std::fs::create_dir(&mount).expect("free");
    let mut command = std::process::Command::new("mount");
    let command = command.args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "twinseal-test"]);
    if !command
        .arg(&mount)
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("SKIPPED: no right to mount a small file system");
        return;
    }
    let _mounted = Mounted(mount.clone());
    let tag = tag("full");
    let audit = dir.path().join("audit.json");
    let config = NodeConfig {
        audit: Some(twinseal_node::jsonl::Output::File {
            path: audit.clone(),
            max_bytes: 0,
            keep: 0,
        }),
        ..config(dir.path(), "n")
    };
    let burned = || std::fs::read(mount.join("burned")).expect("readable");
    let copy = dir.path().join("copy");
    let node = Node::start(config.clone()).expect("it starts");
    // More than fits what is left of the last pages.
    let circuits = (0..60u8).map(|n| {
        Item::Circuit(v1::Circuit {
            name: format!("k{n}"),
            id: 1000 + u64::from(n),
            end: v1::End::A.into(),
            vrf: "red".into(),
            link: "l1".into(),
            label: 5000 + u32::from(n),
            tags: [("t".to_owned(), "x".repeat(256))].into(),
            ..Default::default()
        })
    });
    let keys = || {
        (0..60u8).flat_map(|n| {
            let owner = v1::key::Owner::Circuit(format!("k{n}"));
            let transmits = v1::transmit::Owner::Circuit(format!("k{n}"));
            [
                key(owner, v1::Direction::AToB, 1, 100 + n),
                transmit(transmits, 1),
            ]
        })
    };
    let generation = on_runtime(async {
        let mut client = connect(&config).await;
        let watch = client.watch(v1::WatchRequest::default()).await;
        let mut reader = watch.expect("it tells").into_inner();
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
        fill(&mount.join("fill"));
        let answer = client
            .apply(request(circuits))
            .await
            .expect("it applies")
            .into_inner();
        assert!(answer.not_stored);
        let text = std::fs::read_to_string(&audit).expect("it is there");
        let line = text.lines().last().expect("a line");
        assert!(line.contains("\"not_stored\":true"), "{line}");
        let before = burned();
        let told = fault(&mut reader, "tables_not_stored").await;
        assert!(told.contains("No space left"), "{told}");
        let told = get(&mut client).await.tables_not_stored;
        assert!(told.contains("No space left"), "{told}");
        let status = apply(&mut client, keys())
            .await
            .expect_err("nothing can be burned");
        assert_eq!(
            refusal(&status)[0].code(),
            v1::RefusalCode::Storage,
            "{status}"
        );
        // Nor is any of it read as burned by a restart.
        assert_eq!(burned(), before);

        std::fs::remove_file(mount.join("fill")).expect("it is there");
        fault(&mut reader, "tables_stored_again").await;
        assert_eq!(get(&mut client).await.tables_not_stored, "");
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .arg(&mount)
            .arg(&copy)
            .status();
        assert!(copied.is_ok_and(|status| status.success()));
        apply(&mut client, keys()).await.expect("there is room");
        answer.generation
    });
    node.stop();
    // As after the machine had stopped then: with no transaction in between all is there.
    let config = NodeConfig {
        state_dir: copy,
        ..config
    };
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let got = get(&mut connect(&config).await).await;
        assert_eq!(
            (got.generation, got.secrets_refused.as_str()),
            (generation, "")
        );
    });
}

/// What is written to a file without a name is not there after a restart.
#[test]
fn what_is_taken_away_while_the_node_runs_is_told_at_once() {
    let tag = tag("taken-away");
    for keep_tables in [true, false] {
        let dir = TempDir::new().expect("a folder");
        let config = NodeConfig {
            keep_tables,
            ..config(dir.path(), "n")
        };
        let path = |name: &str| config.state_dir.join(name);
        let node = Node::start(config.clone()).expect("it starts");
        on_runtime(async {
            let mut client = connect(&config).await;
            let watch = client.watch(v1::WatchRequest::default()).await;
            let mut reader = watch.expect("it tells").into_inner();
            apply(&mut client, edge(&tag, v1::End::A))
                .await
                .expect("sound");
            if keep_tables {
                std::fs::remove_dir_all(path("tables")).expect("it is there");
                let told = fault(&mut reader, "state_files_lost").await;
                assert!(
                    told.contains("journal-") && told.contains("written anew"),
                    "{told}"
                );
                fault(&mut reader, "tables_stored_again").await;
                assert!(path("tables").exists());
            }
            // What the next start will miss is shown as long as it is so.
            std::fs::rename(path("mac.key"), path("away")).expect("it moves");
            let told = fault(&mut reader, "state_files_lost").await;
            assert!(told.contains("put it back"), "{told}");
            assert_eq!(get(&mut client).await.warnings, [told.as_str()]);
            std::fs::rename(path("away"), path("mac.key")).expect("it moves");
            assert_eq!(fault(&mut reader, "warning_over").await, told);
            assert_eq!(get(&mut client).await.warnings, [""; 0]);
            let folder = if keep_tables { "tables" } else { "usage" };
            // In one step: whoever writes there must not find it missing.
            std::os::unix::fs::symlink(path("moved"), path("moved")).expect("free");
            exchange(&path(folder), &path("moved"));
            let told = fault(&mut reader, "state_files_lost").await;
            let why = format!("{folder} is no directory, or a link to one");
            assert!(told.contains(&why) && told.contains("next start"), "{told}");
            assert_eq!(get(&mut client).await.warnings, [told.as_str()]);
            exchange(&path(folder), &path("moved"));
            fault(&mut reader, "warning_over").await;
            std::fs::remove_file(path("newest")).expect("it is there");
            let told = fault(&mut reader, "state_files_lost").await;
            assert!(told.contains("newest was removed"), "{told}");
            assert!(path("newest").exists());

            let burned = std::fs::OpenOptions::new()
                .write(true)
                .open(path("burned"))
                .expect("it is there");
            let length = burned.metadata().expect("readable").len();
            burned.set_len(length - 1).expect("it can be cut");
            let told = fault(&mut reader, "secrets_refused").await;
            assert!(
                told.contains("burned was cut while it was in use"),
                "{told}"
            );
            assert_eq!(get(&mut client).await.secrets_refused, told);
            let load = [key(circuit_owner(), v1::Direction::BToA, 2, 50)];
            let status = apply(&mut client, load).await.expect_err("none is taken");
            let code = refusal(&status)[0].code();
            assert_eq!(code, v1::RefusalCode::SecretsRefused, "{status}");
            // All else is.
            let blue = Item::Vrf(v1::Vrf {
                name: "blue".into(),
            });
            apply(&mut client, [blue])
                .await
                .expect("no secret is in it");
            // The last line and more.
            burned.set_len(length - 100).expect("it can be cut");
        });
        node.stop();
        let node = Node::start(config.clone()).expect("it shows itself");
        on_runtime(async {
            let got = get(&mut connect(&config).await).await;
            assert!(
                got.secrets_refused.contains("burned"),
                "{}",
                got.secrets_refused
            );
            assert_eq!(got.stored_tables_damaged, "");
        });
        node.stop();
        if keep_tables {
            std::fs::remove_dir_all(path("tables")).expect("it is there");
            let _node = Node::start(config.clone()).expect("it shows itself");
            on_runtime(async {
                let got = get(&mut connect(&config).await).await;
                assert_eq!(got.generation, 0);
                let why = got.stored_tables_damaged;
                assert!(
                    why.contains("generation 2 was stored and is not there any more"),
                    "{why}"
                );
            });
        }
    }
}

/// Each gets the other's name.
fn exchange(one: &std::path::Path, other: &std::path::Path) {
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, exchange)
        .expect("both are there");
}

/// Writes until nothing more fits.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("it is made");
    for chunk in [4096, 1] {
        while file.write_all(&vec![7; chunk]).is_ok() {}
    }
}
