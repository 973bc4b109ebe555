//! The client against real etcd.

mod cluster;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::{Cluster, PATIENCE, Pki};
use twinseal_etcd::{Change, Client, Config, EtcdError, Source, Tls, User, Watch};

async fn next(watch: &mut Watch) -> Result<Change, EtcdError> {
    let next = tokio::time::timeout(PATIENCE, watch.next());
    next.await.expect("the watch tells something")
}

fn put(key: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    (key.into(), value.into())
}

#[tokio::test]
async fn reads_pages_of_one_revision_and_watches_from_there() {
    let Some(cluster) = Cluster::start(1).await else {
        return;
    };
    let mut client = cluster.client();
    for n in 0..2500 {
        let key = format!("/a/{n:04}");
        client.put(key.as_bytes(), b"1", None).await.unwrap();
    }
    client.put(b"/b", b"beside", None).await.unwrap();
    let snapshot = client.read(b"/a/", None).await.unwrap();
    assert_eq!(snapshot.entries.len(), 2500);
    assert!(snapshot.entries.is_sorted_by(|a, b| a.key < b.key));

    let mut watch = client
        .watch(&[b"/a/", b"/c/"], snapshot.revision + 1)
        .await
        .unwrap();
    let revision = client.put(b"/a/0000", b"2", None).await.unwrap();
    client.put(b"/b", b"not watched", None).await.unwrap();
    client.put(b"/c/x", b"3", None).await.unwrap();
    client.delete(b"/a/0001").await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(next(&mut watch).await.unwrap());
    }
    let ((key, value), (other, three)) = (put("/a/0000", "2"), put("/c/x", "3"));
    for change in [
        Change::Put {
            revision,
            key,
            value,
        },
        Change::Put {
            revision: revision + 2,
            key: other,
            value: three,
        },
        Change::Delete {
            revision: revision + 3,
            key: b"/a/0001".to_vec(),
        },
    ] {
        assert!(seen.contains(&change), "{seen:?}");
    }
    // The old revision can still be read.
    let old = client.read(b"/a/", Some(snapshot.revision)).await.unwrap();
    assert_eq!(old, snapshot);
}

#[tokio::test]
async fn says_when_history_is_gone() {
    let Some(cluster) = Cluster::start(1).await else {
        return;
    };
    let mut client = cluster.client();
    let first = client.put(b"/k", b"1", None).await.unwrap();
    let last = client.put(b"/k", b"2", None).await.unwrap();
    cluster.ctl(&["compact", &last.to_string()]);
    let mut watch = client.watch(&[b"/k"], first).await.unwrap();
    assert_eq!(next(&mut watch).await, Ok(Change::Compacted));
    let gone = client.read(b"/k", Some(first)).await;
    assert!(matches!(gone, Err(EtcdError::Failed(_))), "{gone:?}");
}

#[tokio::test]
async fn what_is_under_a_lease_goes_with_it() {
    let Some(cluster) = Cluster::start(1).await else {
        return;
    };
    let mut client = cluster.client();
    let lease = client.grant(Duration::from_secs(1)).await.unwrap();
    client.put(b"/l", b"here", Some(lease)).await.unwrap();
    let mut watch = client.watch(&[b"/l"], 0).await.unwrap();
    client.keep_alive(lease).await.unwrap();
    // Not kept alive, it ends; etcd never ends one early.
    assert!(matches!(next(&mut watch).await, Ok(Change::Delete { .. })));
    assert_eq!(client.keep_alive(lease).await, Err(EtcdError::LeaseLost));
    assert_eq!(
        client.put(b"/l", b"again", Some(lease)).await,
        Err(EtcdError::LeaseLost)
    );

    let lease = client.grant(Duration::from_secs(60)).await.unwrap();
    client.put(b"/l", b"here", Some(lease)).await.unwrap();
    client.revoke(lease).await.unwrap();
    assert_eq!(client.read(b"/l", None).await.unwrap().entries, []);
}

#[tokio::test]
async fn a_lost_member_costs_a_retry_and_no_change() {
    let Some(mut cluster) = Cluster::start(3).await else {
        return;
    };
    // The client begins with the first member, which then goes.
    let mut client = cluster.client();
    let from = client.put(b"/k/0", b"0", None).await.unwrap() + 1;
    let mut watch = client.watch(&[b"/k/"], from).await.unwrap();
    let seen = client.put(b"/k/1", b"1", None).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(Change::Put { revision, .. }) if revision == seen));
    cluster.kill_member(0);
    let broken = next(&mut watch).await;
    assert!(
        matches!(broken, Err(EtcdError::MemberLost(_))),
        "{broken:?}"
    );
    let mut patience = 100;
    let missed = loop {
        // Until the two others have a leader.
        match client.put(b"/k/2", b"2", None).await {
            Ok(revision) => break revision,
            Err(error) => assert!(patience > 0, "{error}"),
        }
        patience -= 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut watch = client.watch(&[b"/k/"], seen + 1).await.unwrap();
    assert!(
        matches!(next(&mut watch).await, Ok(Change::Put { revision, .. }) if revision == missed)
    );
}

#[tokio::test]
async fn a_role_sees_its_own_prefix() {
    let Some(cluster) = Cluster::start(1).await else {
        return;
    };
    for args in [
        &["user", "add", "root:r"][..],
        &["user", "add", "node-a:secret"],
        &["role", "add", "keys-a"],
        &[
            "role",
            "grant-permission",
            "keys-a",
            "--prefix=true",
            "read",
            "/keys/a/",
        ],
        &["user", "grant-role", "node-a", "keys-a"],
        &["user", "grant-role", "root", "root"],
        &["put", "/keys/a/1", "mine"],
        &["put", "/keys/b/1", "not mine"],
        &["auth", "enable"],
    ] {
        if args == ["user", "grant-role", "root", "root"] {
            cluster.ctl(&["role", "add", "root"]);
        }
        cluster.ctl(args);
    }
    let mut client = cluster.client_as(Some(("node-a", "secret")));
    assert_eq!(
        client.read(b"/keys/a/", None).await.unwrap().entries.len(),
        1
    );
    client.watch(&[b"/keys/a/"], 0).await.unwrap();
    let denied = |result: Option<EtcdError>| {
        assert!(matches!(result, Some(EtcdError::Denied(_))), "{result:?}");
    };
    denied(client.read(b"/keys/b/", None).await.err());
    denied(client.put(b"/keys/a/1", b"x", None).await.err());
    denied(client.watch(&[b"/keys/b/"], 0).await.err());
    let mut wrong = cluster.client_as(Some(("node-a", "guess")));
    denied(wrong.read(b"/keys/a/", None).await.err());
}

#[tokio::test]
async fn nobody_there_and_no_endpoint_are_told() {
    let config = |endpoints: &[&str]| Config {
        endpoints: endpoints
            .iter()
            .map(|&endpoint| endpoint.to_owned())
            .collect(),
        user: None,
        tls: None,
        plain_http: false,
        timeout: Duration::from_secs(1),
    };
    let mut client = Client::new(&config(&["http://127.0.0.1:1", "http://127.0.0.1:2"])).unwrap();
    let Err(EtcdError::Unreachable { tried }) = client.read(b"/", None).await else {
        panic!("nobody can have answered");
    };
    assert!(tried.contains(":1: ") && tried.contains(":2: "), "{tried}");
    for wrong in [
        "127.0.0.1:2379",
        "http://127.0.0.1",
        "not a url",
        "ftp://h:1",
    ] {
        let refused = Client::new(&config(&[wrong])).err();
        assert!(
            matches!(refused, Some(EtcdError::Endpoint { .. })),
            "{wrong}: {refused:?}"
        );
    }
    assert!(Client::new(&config(&[])).is_err());

    // What is elsewhere is not told secrets in the clear, unless that is asked for.
    let elsewhere = config(&["http://127.0.0.1:1", "http://192.0.2.1:2379"]);
    let refused = Client::new(&elsewhere).err();
    assert_eq!(
        refused,
        Some(EtcdError::Plain("http://192.0.2.1:2379".into()))
    );
    assert!(
        Client::new(&Config {
            plain_http: true,
            ..elsewhere
        })
        .is_ok()
    );
    assert!(matches!(
        Client::new(&config(&["https://192.0.2.1:2379"])).err(),
        Some(EtcdError::NoIssuer(_))
    ));
}

#[tokio::test]
async fn a_member_that_forgot_the_token_is_asked_for_another_with_the_password_of_then() {
    let Some(mut cluster) = Cluster::start(1).await else {
        return;
    };
    cluster.ctl(&["role", "add", "root"]);
    for args in [
        &["user", "add", "root:r"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "node-a:first"],
        &["role", "add", "all"],
        &[
            "role",
            "grant-permission",
            "all",
            "--prefix=true",
            "readwrite",
            "/",
        ],
        &["user", "grant-role", "node-a", "all"],
        &["auth", "enable"],
    ] {
        cluster.ctl(args);
    }
    let password = Arc::new(Mutex::new("first"));
    let source = Source::new({
        let password = password.clone();
        move || Ok((*password.lock().unwrap()).to_owned())
    });
    let mut client = cluster.client_of(Some(User {
        name: "node-a".into(),
        password: source,
    }));
    let revision = client.put(b"/k", b"1", None).await.unwrap();
    let mut watch = client.watch(&[b"/k"], revision + 1).await.unwrap();

    // Tokens are in a member's memory: it forgets them, and the watch ends.
    cluster.kill_member(0);
    cluster.start_member(0);
    assert!(next(&mut watch).await.is_err());
    let mut watch = cluster
        .patiently(async || client.watch(&[b"/k"], revision + 1).await)
        .await;
    let mut other = cluster.client_as(Some(("node-a", "first")));
    let seen = other.put(b"/k", b"2", None).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(Change::Put { revision, .. }) if revision == seen));

    // Another password: whoever is asked again gives the new one.
    cluster.ctl_as(
        "root:r",
        &["user", "passwd", "node-a", "--interactive=false"],
        "second\n",
    );
    *password.lock().unwrap() = "second";
    cluster.kill_member(0);
    cluster.start_member(0);
    cluster
        .patiently(async || client.put(b"/k", b"3", None).await)
        .await;
    let denied = other.put(b"/k", b"4", None).await;
    assert!(matches!(denied, Err(EtcdError::Denied(_))), "{denied:?}");
}

#[tokio::test]
async fn members_are_spoken_with_by_tls_and_know_us_by_our_certificate() {
    let Some(cluster) = Cluster::start_tls(1).await else {
        return;
    };
    assert!(cluster.endpoints()[0].starts_with("https://"));
    let mut client = cluster.client();
    let revision = client.put(b"/k", b"1", None).await.unwrap();
    let mut watch = client.watch(&[b"/k"], revision).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(Change::Put { .. })));

    // A stranger's issuer, no certificate of ours, another name: nothing is told.
    let pki = cluster.pki();
    let good = pki.tls();
    for wrong in [
        Tls {
            ca: Pki::new().tls().ca,
            ..good.clone()
        },
        Tls {
            identity: None,
            ..good.clone()
        },
        Tls {
            name: Some("other.example".into()),
            ..good
        },
    ] {
        let config = Config {
            endpoints: cluster.endpoints(),
            user: None,
            tls: Some(Source::new(move || Ok(wrong.clone()))),
            plain_http: false,
            timeout: Duration::from_secs(3),
        };
        let refused = Client::new(&config).unwrap().read(b"/k", None).await;
        assert!(
            matches!(refused, Err(EtcdError::Unreachable { .. })),
            "{refused:?}"
        );
    }
}
