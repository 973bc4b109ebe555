//! What fragments become, and what is wrong with them.

use super::*;

fn sets(changes: &[v1::Change]) -> Vec<String> {
    let mut names: Vec<_> = changes
        .iter()
        .map(|change| match &change.change {
            Some(Of::Set(item)) => format!("set {}", name(item)),
            Some(Of::Delete(reference)) => format!("delete {:?}", reference.item),
            None => panic!("an empty change"),
        })
        .collect();
    names.sort();
    names
}

#[test]
fn fragments_are_one_state_and_only_changes_are_told() {
    let mut desired = Desired::new("/s/");
    desired.set(b"/s/1", b"vrfs:\n- name: red\n- name: blue\n");
    desired.set(
        b"/s/2",
        b"{\"routes\": [{\"vrf\": \"red\", \"prefix\": \"10.0.0.0/8\", \"blackhole\": {}}]}",
    );
    assert_eq!(desired.all().unwrap().len(), 3);
    assert_eq!(desired.changes().unwrap().len(), 3);
    desired.told();
    assert_eq!(desired.changes().unwrap(), []);

    desired.set(b"/s/1", b"vrfs:\n- name: red\n");
    desired.remove(b"/s/2");
    let told = sets(&desired.changes().unwrap());
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[0].contains("RouteRef") || told[1].contains("RouteRef"),
        "{told:?}"
    );
    assert!(
        told.iter().any(|it| it.contains("Vrf(\"blue\")")),
        "{told:?}"
    );
    assert_eq!(told[2], "set vrf \"red\"");
    assert_eq!(desired.all().unwrap().len(), 1);
}

#[test]
fn what_transmits_is_set_and_never_deleted() {
    let mut desired = Desired::new("/s/");
    desired.set(b"/s/1", b"");
    desired.set(b"/k/1", b"transmit:\n- {link: ab, epoch: 1}\n");
    desired.told();
    desired.set(
        b"/k/1",
        b"transmit:\n- {link: ab, epoch: 2}\n- {circuit: ab, epoch: 2}\n",
    );
    assert_eq!(desired.changes().unwrap().len(), 2);
    desired.told();
    desired.remove(b"/k/1");
    assert_eq!(desired.changes().unwrap(), []);
}

#[test]
fn no_fragment_with_tables_is_no_state_and_an_empty_one_is() {
    let mut desired = Desired::new("/s/");
    desired.set(b"/k/1", b"transmit:\n- {link: ab, epoch: 1}\n");
    assert!(desired.all().unwrap_err()[0].item == "/s/");
    desired.set(b"/s/1", b"# nothing yet\n");
    assert_eq!(desired.all().unwrap().len(), 1);
}

#[test]
fn mistakes_name_their_fragment_and_hold_all_back() {
    let mut desired = Desired::new("/s/");
    desired.set(b"/s/good", b"vrfs:\n- name: red\n");
    for (text, part) in [
        ("vrfs: 1\n", "/s/bad"),
        (
            "delete:\n- vrf: red\n",
            "a fragment says what is to be there",
        ),
        (
            "keys:\n- {link: l, direction: a-to-b, epoch: 1, receiver_index: 1, secret_file: /etc/passwd}\n",
            "secret_file",
        ),
    ] {
        desired.set(b"/s/bad", text.as_bytes());
        let mistakes = desired.all().unwrap_err();
        assert!(
            mistakes.iter().any(|it| it.to_string().contains(part)),
            "{text}: {mistakes:?}"
        );
        assert_eq!(desired.changes().unwrap_err(), mistakes);
    }
    desired.remove(b"/s/bad");
    assert_eq!(desired.all().unwrap().len(), 1);
}

#[test]
fn a_hostile_fragment_makes_no_long_lines() {
    let mut desired = Desired::new("/s/");
    let long = "\u{1b}[2J".repeat(15_000);
    let quoted = serde_json::to_string(&long).unwrap();
    let key = format!("/s/{long}");
    for text in [
        format!("{quoted}: 1\n"),
        format!("ports:\n- {{name: p, role: {quoted}}}\n"),
        format!("ports:\n- {{name: p, {quoted}: 1}}\n"),
        format!("ports:\n- {{name: p, af_xdp: {{netdev: e, xdp: {quoted}}}}}\n"),
        format!("delete:\n- {{port: {quoted}}}\n"),
        format!("vrfs: {}\n", "[".repeat(60_000)),
        "vrfs:\n".to_owned() + &"- {nam: 1}\n".repeat(10_000),
    ] {
        desired.set(key.as_bytes(), text.as_bytes());
        let mistakes = desired.all().unwrap_err();
        assert!(mistakes.len() <= 2 * MAX_REASONS, "{}", mistakes.len());
        for mistake in mistakes {
            let mistake = mistake.to_string();
            assert!(mistake.len() < 2500, "{}: {mistake}", mistake.len());
            assert!(!mistake.chars().any(char::is_control), "{mistake}");
        }
    }
}

#[test]
fn two_fragments_may_agree_and_not_contradict() {
    let mut desired = Desired::new("/s/");
    let route = |to: &str| format!("routes:\n- {{vrf: red, prefix: 10.0.0.0/8, {to}}}\n");
    desired.set(b"/s/1", route("circuit: c").as_bytes());
    desired.set(b"/s/2", route("circuit: c").as_bytes());
    assert_eq!(desired.all().unwrap().len(), 1);
    desired.set(b"/s/2", route("group: g").as_bytes());
    let mistakes = desired.all().unwrap_err();
    assert!(
        mistakes[0].item == "/s/2" && mistakes[0].reason.contains("10.0.0.0/8"),
        "{mistakes:?}"
    );
    desired.remove(b"/s/1");
    assert_eq!(desired.all().unwrap().len(), 1);
}

#[test]
fn each_mistake_is_a_reason_with_its_parts() {
    let mut desired = Desired::new("/s/");
    // What the node would find in an entry is found here, also in other fragments than the one with a mistake in its text.
    desired.set(b"/s/1", b"vrfs:\n- {nam: x, name: y}\nprots: []\n");
    desired.set(
        b"/s/2",
        b"routes:\n- {vrf: red, prefix: 10.0.0.1/8, blackhole: {}}\n",
    );
    let reasons = desired.all().unwrap_err();
    let parts: Vec<_> = reasons.iter().map(|it| (&*it.item, &*it.field)).collect();
    assert_eq!(
        parts,
        [
            ("/s/1:2:4", "nam"),
            ("/s/1:3:1", "prots"),
            ("/s/2:2:3", "prefix")
        ],
        "{reasons:?}"
    );
    for reason in &reasons {
        assert!(
            !reason.reason.contains('\n') && !reason.fix.is_empty(),
            "{reason}"
        );
    }
    assert_eq!(reasons[2].fix, "write 10.0.0.0/8");
}

#[test]
fn under_keys_there_are_keys_only() {
    let mut desired = Desired::new("/s/");
    desired.set(b"/s/1", b"");
    desired.set(
        b"/k/1",
        b"keys: []\nports:\n- {name: p}\nroutes: []\ntransmit:\n- {link: l, epoch: 1}\nnothing: 1\n",
    );
    let reasons = desired.all().unwrap_err();
    let fields: Vec<_> = reasons.iter().map(|it| &*it.field).collect();
    assert_eq!(fields, ["ports", "routes", "nothing"]);
    for reason in &reasons[..2] {
        assert!(reason.fix.contains("under `state`"), "{reason}");
    }
    assert!(
        reasons[2].reason.ends_with("there are keys, transmit"),
        "{}",
        reasons[2]
    );
    // The same under `state` is sound.
    desired.remove(b"/k/1");
    desired.set(b"/s/2", b"routes: []\ntransmit:\n- {link: l, epoch: 1}\n");
    assert_eq!(desired.all().unwrap().len(), 1);
}

#[test]
fn a_secret_in_the_wrong_place_is_told_to_nobody() {
    let base64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let hex = "0011".repeat(16);
    let mut desired = Desired::new("/s/");
    for secret in [base64, &base64[1..40], &hex] {
        for text in [
            format!(
                "keys:\n- {{link: l, direction: {secret}, epoch: 1, suite: {secret}, limits: {{{secret}: 1}}}}\n"
            ),
            format!(
                "keys:\n- {{link: {secret}=, direction: a-to-b, epoch: {secret}, {secret}: 1}}\n"
            ),
            format!(
                "keys:\n- {{link: l, link: l, {secret}: 1, {secret}: 2, secret_file: {secret}}}\n"
            ),
            format!("keys:\n- {secret}\n- [{secret}]\n- {{circuit: l, secret: {secret}x}}\n"),
            format!("transmit: {secret}\n{secret}: {secret}\n"),
            format!("transmit:\n- {{link: '{secret}!', epoch: {secret}}}\n"),
        ] {
            desired.set(b"/k/1", text.as_bytes());
            let reasons = desired.all().unwrap_err();
            assert!(reasons.iter().all(|it| it.item.starts_with("/k/1:")));
            let told = format!("{reasons:?}");
            assert!(!told.contains(&secret[2..20]), "{text}{told}");
        }
    }
    desired.remove(b"/k/1");
    for text in [
        format!("ports:\n- {{name: {base64}, role: {hex}}}\n"),
        format!("{base64}: 1\n"),
    ] {
        desired.set(b"/s/1", text.as_bytes());
        let told = format!("{:?}", desired.all().unwrap_err());
        assert!(
            !told.contains(&base64[..20]) && !told.contains(&hex),
            "{told}"
        );
    }
}

#[test]
fn what_is_not_utf8_is_refused() {
    let mut desired = Desired::new("/s/");
    desired.set(b"/s/1", b"vrfs:\n- name: r\xff\n");
    desired.set(b"/s/\xff", b"vrfs:\n- name: red\n");
    let reasons = desired.all().unwrap_err();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert_eq!(
        reasons[0].to_string(),
        "/s/1: line 2 is not UTF-8; write it in UTF-8"
    );
    assert!(
        reasons[1]
            .to_string()
            .starts_with("/s/\\xff: the key is not UTF-8")
    );
    desired.remove(b"/s/\xff");
    desired.set(b"/s/1", b"");
    assert_eq!(desired.all().unwrap(), []);
}
