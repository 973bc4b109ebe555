//! Looks at every request before the service does: is the peer somebody, may they call this method, and not too often?

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Body as HttpBody, Bytes, Service};
use tonic::server::NamedService;
use tonic::{Code, Status};
use twinseal_api::{errors, v1};

use super::budget::Charge;
use super::clients::{Permit, TooMany, Use};
use super::listen::Visitor;
use super::meter::Metered;
use super::words::ours;
use super::{Access, Caller, Peer, Role, endless, needed};
use twinseal_base::text::{sentence, word};

/// Bytes of a message to a method that changes nothing, which asks for something and says little.
const SMALL: usize = 16 << 10;

/// A service behind the guard.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    access: Access,
}

impl<S> Guard<S> {
    /// Puts `inner` behind it.
    pub fn new(inner: S, access: Access) -> Self {
        Self { inner, access }
    }
}

impl<S: NamedService> NamedService for Guard<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (caller, permit) = match self.access.admit(&request) {
            Ok(admitted) => admitted,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let charge = Arc::new(Mutex::new(self.access.charge(&caller)));
        let longest = self.access.longest(method(&request));
        let (charged, scrub) = (Arc::clone(&charge), Arc::clone(&caller.scrub));
        let mut request =
            request.map(|body| Body::new(Metered::new(body, longest, charged, scrub)));
        request.extensions_mut().insert(caller);
        let patience = Patience::of(&request, self.access.limits().request);
        let answer = self.inner.call(request);
        Box::pin(async move {
            match tokio::time::timeout(patience.time(), answer).await {
                Ok(response) => response.map(|response| held(ours(response), permit, charge)),
                Err(_) => Ok(Status::deadline_exceeded(patience.over()).into_http()),
            }
        })
    }
}

/// How long a request may take.
#[derive(Clone, Copy)]
enum Patience {
    /// As the node has it.
    Node(Duration),
    /// As its client asked, which is less.
    Client(Duration),
}

impl Patience {
    fn of<B>(request: &Request<B>, node: Duration) -> Self {
        let header = request.headers().get("grpc-timeout");
        let client = header
            .and_then(|text| text.to_str().ok())
            .and_then(grpc_timeout);
        match client {
            Some(client) if client < node => Self::Client(client),
            _ => Self::Node(node),
        }
    }

    fn time(self) -> Duration {
        match self {
            Self::Node(time) => time,
            // Just before the library, which would say that somebody had cancelled the call.
            Self::Client(time) => time.saturating_sub(Duration::from_millis(1)),
        }
    }

    fn over(self) -> String {
        match self {
            Self::Node(time) => format!(
                "the request was not whole and done within {} s: send it faster or in parts, or raise control.limits.request_seconds",
                time.as_secs()
            ),
            Self::Client(time) => format!(
                "the request was not whole and done within {} ms, the deadline that its client gave it: give it more time; what had come whole by then is done all the same, so ask again under the same request_id, or get the state",
                time.as_millis()
            ),
        }
    }
}

/// The value of the header `grpc-timeout`: up to eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

impl Access {
    /// Who sent it; they may go on until the permit is dropped.
    fn admit(&self, request: &Request<Body>) -> Result<(Caller, Permit), Status> {
        let visitor = request.extensions().get::<Visitor>();
        let visitor =
            visitor.ok_or_else(|| Status::permission_denied("your process is not known"))?;
        if let Some(why) = &visitor.turned_away {
            return Err(Status::resource_exhausted(&**why));
        }
        let peer = &visitor.peer;
        let method = &*word(method(request));
        let (needed, role) = (needed(method), self.role(peer));
        let Some(role) = role.filter(|role| *role >= needed) else {
            self.0.clients.refused("peer_refused", peer.identity());
            let distrust = self.distrust(peer);
            let distrust = distrust.map(|why| sentence(&why).into_owned());
            return Err(denied(peer, method, needed, role, distrust));
        };
        let limits = self.limits();
        let identity = peer.identity();
        let place = match needed {
            _ if endless(method) => Use::Endless,
            Role::Admin => Use::Admin,
            _ => Use::Short,
        };
        let permit = self.0.clients.admit(&identity, &limits, place);
        let permit = permit.map_err(|why| {
            self.0.clients.refused("rate_limited", identity);
            too_many(why, limits.requests_per_second, place)
        })?;
        let caller = Caller {
            peer: Arc::clone(peer),
            role,
            turn: permit.turn(),
            scrub: Arc::clone(&visitor.scrub),
        };
        Ok((caller, permit))
    }

    /// Bytes of a message that a method takes, and what is said to one who sends more.
    fn longest(&self, method: &str) -> (usize, String) {
        match needed(method) {
            Role::Admin => (
                self.limits().message_bytes,
                "send the state in parts by Replace, or raise control.limits.message_bytes"
                    .to_owned(),
            ),
            _ => (
                SMALL,
                format!(
                    "{} takes {SMALL} bytes: ask for less at a time",
                    word(method)
                ),
            ),
        }
    }
}

fn method<B>(request: &Request<B>) -> &str {
    request.uri().path().rsplit('/').next().unwrap_or_default()
}

fn denied(
    peer: &Peer,
    method: &str,
    needed: Role,
    have: Option<Role>,
    distrust: Option<String>,
) -> Status {
    let lists = match (peer, needed) {
        (Peer::Unix { .. }, Role::Admin) => "control.allow_users or control.allow_groups",
        (Peer::Unix { .. }, Role::Operator) => "control.operator_users or control.operator_groups",
        (Peer::Unix { .. }, Role::Viewer) => "control.viewer_users or control.viewer_groups",
        (Peer::Tls { .. }, Role::Admin) => "control.tls.admins",
        (Peer::Tls { .. }, Role::Operator) => "control.tls.operators",
        (Peer::Tls { .. }, Role::Viewer) => "control.tls.viewers",
    };
    let message = match (have, distrust) {
        // No list would help it.
        (None, Some(why)) => {
            format!("{peer} may not control this node any more: {why}; renew it and connect again")
        }
        (Some(have), _) => format!(
            "{peer} has the role {have} at this node, and {method} needs {needed}: add it to {lists}"
        ),
        (None, None) => {
            format!(
                "{peer} may not control this node: add it to {lists}, as {method} needs {needed}"
            )
        }
    };
    let details = v1::AccessDenied {
        needed: needed.number().into(),
        have: have.map_or(v1::Role::Unspecified, Role::number).into(),
        peer: peer.to_string(),
        method: method.to_owned(),
    };
    let facts = [
        ("needed", needed.to_string()),
        (
            "have",
            have.map_or_else(|| "none".to_owned(), |have| have.to_string()),
        ),
        ("method", method.to_owned()),
    ];
    let details = vec![errors::info("ACCESS_DENIED", facts), errors::any(&details)];
    errors::status(Code::PermissionDenied, message, details)
}

fn too_many(why: TooMany, rate: u32, place: Use) -> Status {
    let kept = match place {
        Use::Endless => ", and the other places are kept from streams without end",
        Use::Short => ", and the other places are kept for what admins change",
        Use::Admin => "",
    };
    Status::resource_exhausted(match why {
        TooMany::Requests => format!(
            "more than {rate} requests a second: put more into each, or raise control.limits.requests_per_second"
        ),
        TooMany::Streams(most) => format!(
            "{most} requests of this client are under way{kept}: let some end, or raise control.limits.streams"
        ),
    })
}

/// A request is under way until all of its answer was taken, or the client has gone.
fn held(
    mut response: Response<Body>,
    permit: Permit,
    request: Arc<Mutex<Charge>>,
) -> Response<Body> {
    let answer = response.extensions_mut().remove::<Arc<Charge>>();
    response.map(|body| {
        Body::new(Held {
            body,
            _under_way: (permit, request, answer),
        })
    })
}

struct Held {
    body: Body,
    _under_way: (Permit, Arc<Mutex<Charge>>, Option<Arc<Charge>>),
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_of_clients_are_read_as_grpc_has_them() {
        let known = [
            ("1H", Duration::from_secs(3600)),
            ("99999999M", Duration::from_secs(99_999_999 * 60)),
            ("2S", Duration::from_secs(2)),
            ("500m", Duration::from_millis(500)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
        ];
        for (text, time) in known {
            assert_eq!(grpc_timeout(text), Some(time), "{text}");
        }
        for text in ["", "S", "5", "5s", "+5S", "123456789S", "5 S", "5\u{fc}"] {
            assert_eq!(grpc_timeout(text), None, "{text}");
        }
    }
}
