use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use twinseal_model::parse::ItemKey;

fn parse(text: &str) -> Result<StateFile, StateFileError> {
    StateFile::parse(Path::new("state.yaml"), text)
}

/// The items that a file sets.
fn items(file: StateFile) -> Vec<v1::Item> {
    let set = |change: v1::Change| match change.change {
        Some(v1::change::Change::Set(item)) => item,
        other => panic!("{other:?}"),
    };
    file.changes.into_iter().map(set).collect()
}

/// Asserts that the text is refused for a mistake at this place in this field, its text holding these words.
#[track_caller]
fn wrong(text: &str, place: &str, field: &str, words: &[&str]) {
    let error = parse(text).expect_err("a mistake");
    let message = error.to_string();
    let StateFileError::Invalid(mistakes) = error else {
        panic!("{message}")
    };
    let place = format!("state.yaml:{place}");
    let told = mistakes
        .iter()
        .find(|it| it.place() == place && it.field == field);
    let told = told.unwrap_or_else(|| panic!("{message}")).to_string();
    for word in words {
        assert!(told.contains(word), "{word:?} in {told}");
    }
}

const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn reads_every_section() {
    let file = parse(&format!(
        "
ports:
  - {{name: wan, role: underlay, mtu: 1500, af_xdp: {{netdev: eth1, bind: zero-copy, xdp: native, busy_poll: true}}}}
  - {{name: lan, role: edge, vrf: red, tap: {{netdev: tap0}}}}
  - {{name: mem, role: edge, vrf: red, memory: {{wire: w, mac: 02:00:00:00:00:01}}}}
vrfs:
  - name: red
links:
  - {{name: ab, end: a, port: wan, local: 192.0.2.1, remote: 192.0.2.2, local_port: 1, remote_port: 2, next_hop: fe80::1}}
circuits:
  - {{name: c, id: 18446744073709551615, end: b, vrf: red, link: ab, label: 0xffff_ffff, hop_limit: 9, dscp: fixed, dscp_value: 46, tags: {{clientId: 'x: y'}}}}
labels:
  - {{link: ab, label: 7, egress: {{circuit: c}}}}
  - {{link: ab, label: 8, swap: {{link: bc, label: 9}}}}
groups:
  - name: g
    members:
      - {{circuit: c, weight: 3}}
      - via: {{port: lan, address: 10.0.0.1}}
routes:
  - {{vrf: red, prefix: 10.0.0.0/8, group: g}}
  - {{vrf: red, prefix: ::/0, blackhole: {{}}}}
  - {{vrf: red, prefix: 10.0.0.1/32, via: {{port: lan}}}}
neighbours:
  - {{port: lan, address: 10.0.0.1, mac: 02:00:00:00:00:02}}
keys:
  - {{link: ab, direction: a-to-b, epoch: 1, suite: chacha20-poly1305, receiver_index: 5, secret: {SECRET}}}
transmit:
  - {{circuit: c, epoch: 1}}
delete:
  - port: old
  - label: {{link: ab, label: 1}}
  - route: {{vrf: red, prefix: 0.0.0.0/0}}
  - neighbour: {{port: lan, address: 10.0.0.9}}
  - key: {{circuit: c, direction: b-to-a, epoch: 0}}
"
    ))
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(file.changes.len(), 20);
    assert_eq!(file.place(0).unwrap().to_string(), "state.yaml:3: ports[0]");
    assert_eq!(
        file.place(8).unwrap().to_string(),
        "state.yaml:16: groups[0]"
    );
    assert_eq!(
        file.place(19).unwrap().to_string(),
        "state.yaml:35: delete[4]"
    );
    assert!(file.place(20).is_none() && file.place(-1).is_none());

    let mut changes = file
        .changes
        .into_iter()
        .map(|change| change.change.unwrap());
    let set = |change| match change {
        v1::change::Change::Set(v1::Item {
            item: Some(item), ..
        }) => item,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        set(changes.next().unwrap()),
        v1::item::Item::Port(v1::Port {
            name: "wan".into(),
            role: v1::PortRole::Underlay.into(),
            vrf: String::new(),
            mtu: 1500,
            local: Vec::new(),
            device: Some(v1::port::Device::AfXdp(v1::AfXdp {
                netdev: "eth1".into(),
                bind: v1::BindMode::ZeroCopy.into(),
                xdp: v1::XdpMode::Native.into(),
                busy_poll: true,
                owned: false,
            })),
            ..v1::Port::default()
        })
    );
    assert_eq!(
        set(changes.nth(4).unwrap()),
        v1::item::Item::Circuit(v1::Circuit {
            name: "c".into(),
            id: u64::MAX,
            end: v1::End::B.into(),
            vrf: "red".into(),
            link: "ab".into(),
            label: u32::MAX,
            hop_limit: 9,
            dscp: v1::Dscp::Fixed.into(),
            dscp_value: 46,
            tags: [("clientId".into(), "x: y".into())].into(),
        })
    );
    assert_eq!(
        set(changes.nth(7).unwrap()),
        v1::item::Item::Key(v1::Key {
            owner: Some(v1::key::Owner::Link("ab".into())),
            direction: v1::Direction::AToB.into(),
            epoch: 1,
            suite: v1::Suite::Chacha20Poly1305.into(),
            secret: (0..32).collect(),
            receiver_index: 5,
            ..Default::default()
        })
    );
    let v1::change::Change::Delete(last) = changes.next_back().unwrap() else {
        panic!("a delete")
    };
    let key = v1::KeyRef {
        owner: Some(v1::key_ref::Owner::Circuit("c".into())),
        direction: v1::Direction::BToA.into(),
        epoch: 0,
    };
    assert_eq!(last.item, Some(v1::item_ref::Item::Key(key)));
}

#[test]
fn an_empty_file_changes_nothing() {
    for text in ["", "\n", "# nothing\n", "ports: []\n", "{}\n"] {
        assert_eq!(
            parse(text)
                .unwrap_or_else(|error| panic!("{text:?}: {error}"))
                .changes
                .len(),
            0
        );
    }
}

#[test]
fn what_is_left_out_goes_to_the_node_as_unspecified() {
    let items = items(parse("ports:\n- name: p\nkeys:\n- {epoch: 0, secret: ''}\n").unwrap());
    let Some(v1::item::Item::Port(port)) = &items[0].item else {
        panic!("a port")
    };
    assert_eq!((port.role, &port.device), (0, &None));
    let Some(v1::item::Item::Key(key)) = &items[1].item else {
        panic!("a key")
    };
    assert_eq!((key.suite, key.direction, &key.owner), (0, 0, &None));
}

#[test]
fn names_the_place_of_each_mistake() {
    wrong(
        "prots: []\n",
        "1:1",
        "prots",
        &["unknown field", "ports", "correct its name"],
    );
    wrong(
        "ports:\n- name: p\n  rolle: edge\n",
        "3:3",
        "rolle",
        &["unknown field", "role"],
    );
    wrong(
        "ports:\n- role: edge\n",
        "2:3",
        "name",
        &["missing field", "add it"],
    );
    wrong(
        "ports:\n- {name: p, role: middle}\n",
        "2:19",
        "role",
        &["middle", "edge", "underlay", "one of these"],
    );
    wrong(
        "links:\n- name: l\n  local_port: -1\n",
        "3:15",
        "local_port",
        &["kind"],
    );
    wrong(
        "labels:\n- {link: l, label: 4294967296}\n",
        "2:20",
        "label",
        &["kind"],
    );
    wrong(
        "labels:\n- {link: l, label: 1.5}\n",
        "2:20",
        "label",
        &["kind"],
    );
    wrong(
        "circuits:\n- {name: c, id: 18446744073709551616}\n",
        "2:17",
        "id",
        &["kind"],
    );
    wrong("ports: [\n", "1:8", "ports", &["correct the text"]);
    wrong(
        "vrfs: []\nvrfs: []\n",
        "2:1",
        "vrfs",
        &["duplicate", "keep one"],
    );
    wrong(
        "delete:\n- prot: x\n",
        "2:3",
        "prot",
        &["unknown field", "port", "correct its name"],
    );
    wrong(
        "routes:\n- {vrf: v, prefix: ::/0, circuit: a, group: b}\n",
        "2:3",
        "circuit, group, via, blackhole",
        &["keep one"],
    );
    wrong(
        "ports:\n- {name: p, tap: {netdev: a}, memory: {wire: b}}\n",
        "2:3",
        "af_xdp, tap, memory",
        &["keep one"],
    );
    wrong(
        "groups:\n- name: g\n  members:\n  - {circuit: a, via: {port: b}}\n",
        "4:5",
        "circuit, via",
        &["keep one"],
    );
    wrong(
        "transmit:\n- {link: a, circuit: b, epoch: 1}\n",
        "2:3",
        "link, circuit",
        &["keep one"],
    );
    wrong(
        "keys:\n- {link: a, epoch: 1}\n",
        "2:3",
        "secret",
        &["genkey", "`installed`"],
    );
    wrong(
        "keys:\n- {link: a, epoch: 1, secret: '', secret_file: a}\n",
        "2:3",
        "secret, secret_file",
        &["keep one"],
    );
    wrong(
        "keys:\n- {link: a, epoch: 1, secret_file: none/such}\n",
        "2:3",
        "secret_file",
        &["No such file", "genkey"],
    );
}

#[test]
fn tells_all_mistakes_at_once() {
    let text = "prots: []
ports:
- { name: p, role: middle, mtu: big, af_xdp: { bind: fast, what: 1 } }
- { role: edge }
- lan
- { name: q, name: r }
links: ab
routes:
- { vrf: v, prefix: ::/0, circuit: a, group: [b] }
groups:
- { name: g, members: [ { circuit: a, weight: -1 }, { via: { adress: x } } ] }
keys:
- { link: a, epoch: 1 }
- { link: a, epoch: 2, secret: '?', limits: { packets: many } }
labels:
- { link: a, label: 5 }
groups:
- { name: h, members: [] }
routes:
- { vrf: v, prefix: 10.0.0.1/8, circuit: a }
delete:
- route: { vrf: v }
- label: { link: l }
- neighbour: { port: p }
- key: { circuit: c }
vrfs: [
";
    let error = parse(text).expect_err("mistakes").to_string();
    let told: Vec<_> = error
        .lines()
        .map(|line| {
            let mut parts = line
                .strip_prefix("state.yaml:")
                .expect("a file")
                .split(": ");
            let place = parts.next().expect("a place");
            let line = place.split(':').next().expect("a line");
            format!("{line} {}", parts.next().expect("a field"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "1 prots",
            "3 role",
            "3 mtu",
            "3 af_xdp.netdev",
            "3 af_xdp.bind",
            "3 af_xdp.what",
            "4 name",
            "4 vrf",
            "4 device",
            "5 it has no fields; write them like { name",
            "6 role",
            "6 device",
            "6 name",
            "7 links",
            "9 group",
            "11 members[0].weight",
            "11 members[1].via.port",
            "11 members[1].via.adress",
            "13 secret",
            "13 direction",
            "14 secret",
            "14 direction",
            "14 limits.packets",
            "16 action",
            "17 groups",
            "18 members",
            "19 routes",
            "20 prefix",
            "22 route.prefix",
            "23 label.label",
            "24 neighbour.address",
            "25 direction",
            "25 key.epoch",
            "26 vrfs",
        ],
        "{error}"
    );
    for word in ["u32", "u64", "invalid type", "Policy", "serde", "EOF"] {
        assert!(!error.contains(word), "{word} in {error}");
    }
}

#[test]
fn what_is_named_twice_is_refused_with_both_lines() {
    for (text, first, second) in [
        ("vrfs:\n- name: a\n- name: b\n- name: a\n", 2, 4),
        ("delete:\n- port: lan\nports:\n- { name: lan }\n", 2, 4),
        ("delete: [ { vrf: a }, { vrf: a } ]\n", 1, 1),
        (
            "routes:\n- { vrf: r, prefix: 2001:DB8::/32, circuit: a }\n- { vrf: r, prefix: 2001:db8::/32, circuit: b }\n",
            2,
            3,
        ),
        (
            "transmit: [ { link: l, epoch: 1 } ]\ndelete:\n- transmit: { link: l }\n",
            1,
            3,
        ),
        (
            "keys:\n- { circuit: c, direction: a-to-b, epoch: 1, secret: installed }\ndelete:\n- key: { circuit: c, direction: a-to-b, epoch: 1 }\n",
            2,
            4,
        ),
        (
            "labels:\n- { link: l, label: 16, egress: { circuit: c } }\n- { link: l, label: 0x10, swap: { link: m, label: 1 } }\n",
            2,
            3,
        ),
        (
            "neighbours:\n- { port: p, address: fe80::1 }\n- { port: p, address: FE80:0::1 }\n",
            2,
            3,
        ),
    ] {
        let error = parse(text).expect_err(text).to_string();
        let mut twice = error
            .lines()
            .filter(|line| line.contains(" is named in line "));
        let (one, other) = twice
            .next()
            .and_then(|line| line.split_once(" is named in line "))
            .expect("it says so");
        let line = |line: u32| format!("{line} already");
        // A deletion stands last, wherever the file has it.
        let told = (
            one.starts_with(&format!("state.yaml:{second}:")) && other.starts_with(&line(first)),
            one.starts_with(&format!("state.yaml:{first}:")) && other.starts_with(&line(second)),
        );
        assert!(told.0 || told.1, "{text}: {error}");
        assert_eq!(twice.next(), None, "{error}");
    }
}

#[test]
fn what_get_prints_for_programs_can_be_applied() {
    let text = "generation: 7
keys:
- { circuit: c, direction: a-to-b, epoch: 1, needed: true, packets: 9 }
ports:
- { port: lan, up: true }
state:
  vrfs: [ { name: red } ]
  keys:
  - { circuit: c, direction: a-to-b, epoch: 1, secret: needed }
version: 1.0
";
    let file = parse(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((file.changes.len(), file.installed), (2, 1));
    assert_eq!(file.place(0).unwrap().to_string(), "state.yaml:7: vrfs[0]");
    let items = items(file);
    assert!(matches!(&items[1].item, Some(v1::item::Item::Key(key)) if key.needed));
    assert_eq!(
        parse("generation: 0\nstate: {}\n").unwrap().changes.len(),
        0
    );
    wrong(
        "state:\n  prots: []\nnode: a\n",
        "2:3",
        "prots",
        &["unknown field"],
    );
    wrong("node: a\nstate: [ 1 ]\n", "2:1", "state", &["sections"]);
}

#[test]
fn aliases_repeat_what_they_stand_for_and_no_more_than_is_sane() {
    let text = "ports:
- &lan { name: lan, role: edge, vrf: red, tap: { netdev: t0 } }
- { <<: *lan, name: lan2, tap: { netdev: t1 } }
groups:
- name: g
  members: &all [ { circuit: a }, { circuit: b } ]
- { name: h, members: *all }
";
    let all = items(parse(text).unwrap_or_else(|error| panic!("{error}")));
    let Some(v1::item::Item::Port(port)) = &all[1].item else {
        panic!("a port")
    };
    assert_eq!((port.name.as_str(), port.vrf.as_str()), ("lan2", "red"));
    let Some(v1::item::Item::Group(group)) = &all[3].item else {
        panic!("a group")
    };
    assert_eq!(group.members.len(), 2);

    let mut bomb = "groups:\n- &a0 [ x, x, x, x, x, x, x, x, x, x ]\n".to_owned();
    for n in 1..12 {
        let all = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb += &format!("- &a{n} [ {all} ]\n");
    }
    let error = parse(&bomb).expect_err("too much").to_string();
    assert!(error.contains("aliases repeat more than"), "{error}");
    let deep = format!("groups: {}{}\n", "[ ".repeat(200), "] ".repeat(200));
    let error = parse(&deep).expect_err("too deep").to_string();
    assert!(error.contains("too deep"), "{error}");
    wrong(
        "vrfs:\n- name: a\n---\nvrfs: []\n",
        "3:1",
        "",
        &["second document"],
    );
}

#[test]
fn a_mistake_in_a_secret_shows_nothing_of_it() {
    for text in [
        format!("keys:\n- {{link: a, epoch: 1, secret: '{SECRET}!'}}\n"),
        format!(
            "keys:\n- {{link: a, epoch: 1, secret: '{}'}}\n",
            &SECRET[1..]
        ),
        format!("keys:\n- {{link: a, epoch: one, secret: {SECRET}}}\n"),
        format!("keys:\n- link: a\n  epoch: 1\n  secret: {SECRET}\n  what: 1\n"),
        format!("keys:\n- link: a\n  epoch: 1\n  secret: {SECRET}\n secret: 1\n"),
        format!("keys:\n- link: a\n  epoch: 1\n  secret: [{SECRET}\n"),
    ] {
        let error = parse(&text).expect_err(&text);
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains(&SECRET[1..20]), "{shown}");
        }
    }
    let file = parse(&format!(
        "keys:\n- {{link: a, epoch: 1, secret: {SECRET}}}\n"
    ))
    .unwrap();
    let rendered = render(&items(file));
    assert!(
        rendered.contains("secret: installed") && !rendered.contains(&SECRET[..8]),
        "{rendered}"
    );
}

#[test]
fn secret_files_are_relative_to_the_state_file() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("k");
    std::fs::write(&key, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let path = dir.path().join("state.yaml");
    std::fs::write(&path, "keys:\n- {link: a, epoch: 1, secret_file: k}\n").unwrap();
    let items = items(StateFile::load(&path).unwrap());
    let Some(v1::item::Item::Key(key)) = &items[0].item else {
        panic!("a key")
    };
    assert_eq!(key.secret, (0..32).collect::<Vec<u8>>());
    let missing = StateFile::load(&dir.path().join("none.yaml"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("none.yaml") && missing.contains("-f"),
        "{missing}"
    );
}

#[test]
fn aliases_make_no_more_than_a_text_may_hold() {
    // Used as people do, in any number.
    let members = "- *m\n    ".repeat(64);
    let file = parse(&format!(
        "groups:\n  - name: a\n    members:\n    - &m {{circuit: c, weight: 3}}\n    {members}\n"
    ));
    assert_eq!(file.unwrap().changes.len(), 1);
    // A small entry very often; and a long value many times.
    let mut lists = "delete:\n- &a {vrf: x}\n".to_owned();
    lists.push_str(&"- *a\n".repeat(200_000));
    let long = format!(
        "vrfs:\n- name: &n {}\n{}",
        "x".repeat(100_000),
        "- name: *n\n".repeat(10_000)
    );
    for text in [lists, long] {
        let error = parse(&text).unwrap_err().to_string();
        for word in ["state.yaml:", "aliases repeat more than"] {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(StateFile::parse_fragment(Path::new("/k"), &text).is_err());
    }
    // A large file that says it all itself.
    let names = (0..60_000).map(|n| format!("- {{name: x{n}}}\n"));
    let large = format!("vrfs:\n{}", names.collect::<String>());
    assert_eq!(parse(&large).unwrap().changes.len(), 60_000);
}

#[test]
fn an_installed_key_has_no_secret() {
    let file =
        parse("keys:\n- {link: a, epoch: 1, secret: installed}\nvrfs: [{name: v}]\n").unwrap();
    assert_eq!((file.changes.len(), file.installed), (2, 1));
    assert_eq!(file.place(0).unwrap().to_string(), "state.yaml:3: vrfs[0]");
}

#[test]
fn every_example_can_be_read() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_some_and(|it| it == "yaml") {
                example(&path);
                seen += 1;
            }
        }
    }
    assert!(seen >= 2, "{seen} examples");
}

/// Reads an example beside such secret files as it tells its reader to make.
fn example(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (_, after) in text
        .match_indices("secret_file: ")
        .map(|(at, found)| text.split_at(at + found.len()))
    {
        let name = after.split([' ', '\n']).next().unwrap();
        let secret = dir.path().join(name);
        std::fs::write(&secret, SECRET).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let file = StateFile::parse(&dir.path().join("state.yaml"), &text);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!file.changes.is_empty(), "{}", path.display());
}

/// Any text that a protocol's string can hold, also such as YAML could take for something else.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_.-]{1,64}",
        "\\PC{0,20}",
        any::<String>(),
        prop::sample::select(vec![
            "",
            " ",
            "~",
            "null",
            "true",
            "no",
            "on",
            "0x10",
            "1e3",
            "1_000",
            "-",
            "---",
            "...",
            "#x",
            "a: b",
            "a #b",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "'",
            "\"",
            "[",
            "{",
            "? a",
            "<<",
            "=",
            "02:00:00:00:00:01",
            "12:30",
            "2001:db8::1",
            "::/0",
            "\n",
            "a\n\nb\n",
            "\t",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "\u{0}",
            ".inf",
            "installed",
        ])
        .prop_map(str::to_owned),
    ]
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(u32::MAX), any::<u32>()]
}

fn item() -> impl Strategy<Value = v1::item::Item> {
    use v1::item::Item;
    let via = || (text(), text()).prop_map(|(port, address)| v1::Via { port, address });
    let device = prop_oneof![
        (text(), 0..3, 0..3, any::<bool>(), any::<bool>()).prop_map(
            |(netdev, bind, xdp, busy_poll, owned)| {
                v1::port::Device::AfXdp(v1::AfXdp {
                    netdev,
                    bind,
                    xdp,
                    busy_poll,
                    owned,
                })
            }
        ),
        text().prop_map(|netdev| v1::port::Device::Tap(v1::Tap { netdev })),
        (text(), text()).prop_map(|(wire, mac)| v1::port::Device::Memory(v1::Memory { wire, mac })),
    ];
    let action = prop_oneof![
        (text(), number())
            .prop_map(|(link, label)| v1::label::Action::Swap(v1::Swap { link, label })),
        text().prop_map(|circuit| v1::label::Action::Egress(v1::Egress { circuit })),
    ];
    let member = prop_oneof![
        text().prop_map(v1::member::Target::Circuit),
        via().prop_map(v1::member::Target::Via)
    ];
    let target = prop_oneof![
        text().prop_map(v1::route::Target::Circuit),
        text().prop_map(v1::route::Target::Group),
        via().prop_map(v1::route::Target::Via),
        Just(v1::route::Target::Blackhole(v1::Blackhole {})),
    ];
    let owner = prop_oneof![
        text().prop_map(v1::transmit::Owner::Link),
        text().prop_map(v1::transmit::Owner::Circuit)
    ];
    prop_oneof![
        (
            text(),
            0..3,
            text(),
            number(),
            prop::collection::vec(text(), 0..3),
            prop::option::of(device),
            0..3
        )
            .prop_map(|(name, role, vrf, mtu, local, device, checksum)| {
                Item::Port(v1::Port {
                    name,
                    role,
                    vrf,
                    mtu,
                    local,
                    device,
                    checksum,
                })
            }),
        text().prop_map(|name| Item::Vrf(v1::Vrf { name })),
        (
            text(),
            0..3,
            text(),
            text(),
            text(),
            number(),
            number(),
            text()
        )
            .prop_map(
                |(name, end, port, local, remote, local_port, remote_port, next_hop)| {
                    Item::Link(v1::Link {
                        name,
                        end,
                        port,
                        local,
                        remote,
                        local_port,
                        remote_port,
                        next_hop,
                    })
                }
            ),
        (
            text(),
            any::<u64>(),
            0..3,
            text(),
            text(),
            number(),
            number(),
            (0..3, number()),
            prop::collection::btree_map(text(), text(), 0..3)
        )
            .prop_map(
                |(name, id, end, vrf, link, label, hop_limit, (dscp, dscp_value), tags)| {
                    Item::Circuit(v1::Circuit {
                        name,
                        id,
                        end,
                        vrf,
                        link,
                        label,
                        hop_limit,
                        dscp,
                        dscp_value,
                        tags,
                    })
                }
            ),
        (text(), number(), prop::option::of(action)).prop_map(|(link, label, action)| Item::Label(
            v1::Label {
                link,
                label,
                action
            }
        )),
        (
            text(),
            vec((prop::option::of(member), prop::option::of(number())), 0..4)
        )
            .prop_map(|(name, members)| {
                let members = members
                    .into_iter()
                    .map(|(target, weight)| v1::Member { target, weight })
                    .collect();
                Item::Group(v1::Group { name, members })
            }),
        (text(), text(), prop::option::of(target)).prop_map(|(vrf, prefix, target)| Item::Route(
            v1::Route {
                vrf,
                prefix,
                target
            }
        )),
        (text(), text(), text()).prop_map(|(port, address, mac)| Item::Neighbour(v1::Neighbour {
            port,
            address,
            mac
        })),
        (prop::option::of(owner), number())
            .prop_map(|(owner, epoch)| Item::Transmit(v1::Transmit { owner, epoch })),
    ]
}

/// The order of sections in a file.
fn section(item: &v1::Item) -> usize {
    use v1::item::Item;
    match item.item.as_ref().unwrap() {
        Item::Port(_) => 0,
        Item::Vrf(_) => 1,
        Item::Link(_) => 2,
        Item::Circuit(_) => 3,
        Item::Label(_) => 4,
        Item::Group(_) => 5,
        Item::Route(_) => 6,
        Item::Neighbour(_) => 7,
        Item::Key(_) => 8,
        Item::Transmit(_) => 9,
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(all in vec(item(), 0..12)) {
        let mut all: Vec<_> = all.into_iter().map(|item| v1::Item { item: Some(item), ..Default::default() }).collect();
        all.sort_by_key(section);
        // What is named twice is refused, in whichever sections.
        let mut named = std::collections::HashSet::new();
        all.retain(|item| {
            let change = v1::Change { change: Some(v1::change::Change::Set(item.clone())) };
            ItemKey::of_change(&change).is_none_or(|key| named.insert(key))
        });
        let text = render(&all);
        let file = parse(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(items(file), all, "{}", text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}|(ports|keys|delete):\n- \\PC{0,80}\n") {
        let _ = parse(&text);
    }
}
