//! Pages of results that the real serialisers made.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use twinseal_crypto::{Suite, default_provider};

use super::{Kind, Piece, render};
use crate::compare::{
    Comparison, Metric, MetricLine, Participant, Rate, Round, RoundTrip, Setup, Tcp, TrafficBy,
};
use crate::net::Extent;
use crate::report::Plan;
use crate::seal::SealReport;
use crate::{Machine, Report, Role, Sample, Size};
use crate::{l2fwd, rfc2544};
use twinseal_lab::traffic::Finding;

/// A piece as the subcommand would have printed it.
fn piece(kind: Kind, results: &impl Serialize) -> Piece {
    let mut results = serde_json::to_value(results).unwrap();
    let machine = Machine {
        command: format!("twinseal-bench {} --json", kind.name()),
        ..Machine::this()
    };
    results["machine"] = serde_json::to_value(machine).unwrap();
    Piece::parse(&results.to_string()).unwrap()
}

fn sample(median: f64) -> Sample {
    Sample::new(vec![median * 0.9, median, median * 1.2])
}

fn comparison() -> Comparison {
    let participant = |name: &str, seals, version: Option<&str>| Participant {
        name: name.into(),
        about: "x < y & z".into(),
        seals,
        version: version.map(Into::into),
        missing: version.is_none().then(|| "apt install it".into()),
        failures: Vec::new(),
    };
    let mut peers = vec![
        participant("kernel", 0, Some("1")),
        participant("twinseal", 2, Some("1")),
        participant("slow<er>", 1, Some("1")),
        participant("absent", 1, None),
    ];
    peers[2].failures.push("round 2: it said <no>".into());
    let line = |peer: &str, value: f64| MetricLine {
        peer: peer.into(),
        value: sample(value),
        at_least: peer == "twinseal",
        to_kernel: Some(sample(value / 0.4)),
        to_best_sealed: Some(sample(value / 0.1)),
    };
    let metric = |id: &str, unit: &str| Metric {
        id: id.into(),
        title: format!("Figure {id}"),
        unit: unit.into(),
        more_is_better: true,
        best_sealed: Some("slow<er>".into()),
        lines: vec![
            line("kernel", 0.4),
            line("twinseal", 0.3),
            line("slow<er>", 0.1),
        ],
    };
    Comparison {
        machine: Machine::this(),
        setup: Setup {
            rounds: 3,
            sizes: vec![64],
            traffic: TrafficBy::Sockets,
            flows: 16,
            trial_ms: 250,
            resolution: 0.05,
            tcp_seconds: 3,
            pings: 1000,
            ping_interval_us: 1000,
            workers: 1,
            xdp: "auto".into(),
            config: Vec::new(),
            program: "twinseal".into(),
        },
        peers,
        metrics: vec![
            metric("rate-64", "Mpps"),
            metric("tcp", "Gbit/s"),
            metric("rtt-p50", "us"),
        ],
        rounds: vec![Round {
            round: 1,
            peer: "kernel".into(),
            rates: vec![Rate {
                octets: 64,
                mpps: 0.4,
                finding: Finding::AtLeastGenerator,
                trials: 9,
                void: 1,
                sent: 1000,
                received: 990,
            }],
            tcp: Some(Tcp {
                gbps: 3.0,
                retransmits: 0,
                cpus: 1.5,
            }),
            round_trip: RoundTrip {
                p50_us: 30.0,
                p99_us: 90.0,
                sent: 10,
                received: 10,
            },
            counts: None,
        }],
    }
}

fn pipeline() -> Report {
    Report::measure(&Plan {
        provider: default_provider(),
        suite: Suite::Aes256Gcm,
        roles: Role::ALL.to_vec(),
        sizes: vec![Size::Octets(64), Size::Octets(1400)],
        extent: Extent::default(),
        budget: Duration::ZERO,
        allocations: || 0,
    })
    .unwrap()
}

fn seals() -> SealReport {
    SealReport::measure(&[Suite::Aes256Gcm], &[64], 32, 32, Duration::ZERO).unwrap()
}

fn l2fwd() -> l2fwd::Report {
    let rate = |ns: f64| l2fwd::Rate {
        forwarded: sample(1e9 / ns),
        offered: sample(2e9 / ns),
        cpu_ns: sample(ns),
    };
    l2fwd::Report {
        machine: Machine::this(),
        provider: "ring".into(),
        runs: 3,
        lines: [("native", 64, 0.8), ("generic", 1400, 0.916)]
            .map(|(mode, octets, ratio)| l2fwd::Line {
                mode: mode.into(),
                octets,
                frame: octets + 106,
                bare: rate(800.0),
                transit: rate(1000.0),
                ratio: sample(ratio),
            })
            .to_vec(),
    }
}

fn rfc2544() -> rfc2544::Results {
    let latency = |load: f64| rfc2544::LatencyAt {
        load,
        pps: 1e5 * load,
        packets: 1000,
        kept_up: true,
        lost: 0,
        p50_us: sample(50.0),
        p90_us: Some(sample(80.0)),
        p99_us: Some(sample(200.0)),
        p999_us: (load > 0.5).then(|| sample(900.0)),
        p9999_us: None,
        max_us: sample(5000.0),
    };
    let loss = |load: f64, lost| rfc2544::LossAt {
        load,
        asked_pps: 2e5 * load,
        kept_up: true,
        offered_pps: 2e5 * load,
        received_pps: 1e5,
        sent: 1000,
        lost,
    };
    let throughput = |tolerated_loss| rfc2544::Throughput {
        tolerated_loss,
        pps: sample(1e5),
        gbps: 0.1,
        finding: Finding::AtLeastGenerator,
        searches: 3,
        inconclusive: 0,
        trials: 9,
        lost: 1,
        void: 1,
        contradicted_by_pps: None,
    };
    let size = |size: Size| rfc2544::SizeResult {
        size,
        octets: size.mean(0),
        frame_bytes: size.mean(0) + 18.0,
        throughput: Some(throughput(0.0)),
        tolerant: vec![throughput(0.005)],
        latency: vec![latency(0.1), latency(0.9)],
        loss: vec![loss(1.0, 500), loss(0.5, 0)],
        back_to_back: None,
    };
    rfc2544::Results {
        machine: Machine::this(),
        verdict: rfc2544::Verdict::Success,
        reasons: Vec::new(),
        dut: rfc2544::Dut::default(),
        sockets: Vec::new(),
        flows: 64,
        v6: false,
        both_ways: false,
        trial_seconds: 0.1,
        repeats: 3,
        sizes: vec![
            size(Size::Octets(64)),
            size(Size::Imix),
            size(Size::Octets(1400)),
        ],
        total: rfc2544::Total::default(),
    }
}

/// What is in the page's boxes of figures, from the first on.
fn figures(page: &str) -> Vec<&str> {
    let begin = page.find("<div class=\"figures\">").expect("figures");
    let end = begin + page[begin..].find("<ul class=\"lead\">").expect("they end");
    page[begin..end].split("<b>").skip(1).collect()
}

#[test]
fn the_first_figure_is_from_host_to_host_and_says_how_sure_it_is() {
    let mut quick = piece(Kind::Compare, &comparison());
    quick.machine.command += " --quick";
    // In another order than the page's: figures of memory are none, whatever comes first.
    let pieces = [
        piece(Kind::Pipeline, &pipeline()),
        piece(Kind::L2fwd, &l2fwd()),
        piece(Kind::Rfc2544, &rfc2544()),
        quick,
    ];
    let page = render(&pieces, &[]);
    let figures = figures(&page);
    assert!(figures[0].starts_with("≥ 0.3 Mpps"), "{figures:?}");
    assert!(
        figures[0].contains("from host to host") && figures[0].contains("XDP"),
        "{figures:?}"
    );
    assert!(figures[0].contains("--quick"), "{figures:?}");
    assert!(figures.iter().any(|it| it.contains("IMIX")), "{figures:?}");
    assert!(figures.iter().all(|it| !it.contains("core")), "{figures:?}");
    // Each mode and size with itself, by name.
    assert!(
        page.contains("80 % with 64 bytes in native XDP, 91.6 % with 1400 bytes in generic XDP"),
        "{page}"
    );
    // Raw JSON is nowhere, and the mix is no size.
    assert!(!page.contains("{\"") && !page.contains(">346<"));
}

#[test]
fn nested_results_are_told_in_words() {
    let nested = json!({ "lines": [{ "name": "a", "dut": { "nodes": [{ "workers": 1 }], "p50_us": 3 } }, { "more": true }] });
    let page = render(&[piece(Kind::Soak, &nested)], &[]);
    assert!(
        page.contains("nodes workers 1, p50 us 3") && page.contains("<th>more</th>"),
        "{page}"
    );
    assert!(!page.contains("{&quot;") && !page.contains("{\""), "{page}");
}

#[test]
fn small_samples_are_marked() {
    let of = |repeats| {
        let results = rfc2544::Results {
            repeats,
            verdict: rfc2544::Verdict::Inconclusive,
            reasons: vec!["imix: none".into()],
            ..rfc2544()
        };
        render(&[piece(Kind::Rfc2544, &results)], &[])
    };
    assert!(of(1).contains("measured once") && of(2).contains("measured 2 times only"));
    assert!(!of(3).contains("measured once") && of(3).contains("inconclusive: imix: none"));
}

/// Every element that is opened is closed in the same order, and every attribute is quoted.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some(begin) = rest.find('<') {
        let text = &rest[..begin];
        assert!(!text.contains('>'), "a bare > in {text:?}");
        let end = begin + rest[begin..].find('>').expect("a tag ends");
        let tag = &rest[begin + 1..end];
        rest = &rest[end + 1..];
        assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
        assert!(!tag.contains("NaN") && !tag.contains("inf"), "{tag}");
        let name = tag.split(' ').next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{svg}"),
            None if tag.ends_with('/') => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
}

fn svgs(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(begin) = rest.find("<svg") {
        let end = begin + rest[begin..].find("</svg>").expect("it ends") + "</svg>".len();
        found.push(&rest[begin..end]);
        rest = &rest[end..];
    }
    found
}

#[test]
fn every_kind_has_its_section_and_nothing_is_fetched() {
    let pieces = [
        piece(Kind::Compare, &comparison()),
        piece(Kind::Rfc2544, &rfc2544()),
        piece(Kind::L2fwd, &l2fwd()),
        piece(Kind::Pipeline, &pipeline()),
        piece(Kind::Seal, &seals()),
        piece(
            Kind::Load,
            &json!({ "sizes": { "v4": 7 }, "lines": [{ "what": "links", "count": 7 }], "lost": 0 }),
        ),
        piece(
            Kind::Soak,
            &json!({ "hours": 2.5, "lines": [{ "drops": 0, "name": "a" }] }),
        ),
    ];
    let page = render(&pieces, &[(Kind::Tables, "it <failed>".into())]);
    for kind in Kind::ALL {
        assert!(
            page.contains(&format!("<section id=\"{}\"", kind.name())),
            "{kind:?}"
        );
    }
    // Three metrics, the stages and the sizes of the pipeline, two seals of one size, the rings, and of RFC
    // 2544 throughput, two sizes' times and loss.
    let plots = svgs(&page);
    assert_eq!(plots.len(), 3 + 2 + 1 + 1 + 4);
    for plot in plots {
        assert_well_formed(plot);
    }
    for fetched in [
        "<script", "<link", "src=", "url(", "@import", "http:", "https:",
    ] {
        assert!(!page.contains(fetched), "{fetched}");
    }
    // What is missing is said to be, with the reason that is known.
    assert_eq!(page.matches("Not measured").count(), 1);
    assert!(page.contains("it &lt;failed&gt;"));
    assert!(page.contains("not installed here: apt install it"));
    assert!(page.contains("it said &lt;no&gt;") && !page.contains("slow<er>"));
    assert!(!page.contains("cannot be read"));
    // The words at the top.
    assert!(
        page.contains("at least 0.3 million packets of 64 bytes"),
        "{page}"
    );
    assert!(page.contains("3 times the best of those that seal once (slow&lt;er&gt;)"));
    assert_eq!(
        page.contains("their times mean nothing") || page.contains("its times mean nothing"),
        cfg!(debug_assertions)
    );
}

#[test]
fn a_page_of_nothing_says_so() {
    let page = render(&[], &[]);
    assert!(page.contains("Nothing was measured"));
    assert_eq!(page.matches("Not measured").count(), Kind::ALL.len());
    assert!(svgs(&page).is_empty());
}

#[test]
fn results_that_are_none_are_refused() {
    let refused = |json: Value| Piece::parse(&json.to_string()).unwrap_err().to_string();
    assert!(refused(json!({ "lines": [] })).contains("machine"));
    let mut machine = serde_json::to_value(Machine::this()).unwrap();
    machine["command"] = "twinseal-bench report".into();
    assert!(refused(json!({ "machine": machine })).contains("gives no results"));
    // Of the right kind, but of another shape: said in its section.
    let page = render(&[piece(Kind::Pipeline, &json!({ "lines": 7 }))], &[]);
    assert!(page.contains("These results cannot be read"));
}
