//! What the libraries of gRPC answer for themselves, in the words of this API: what is wrong and what to do.

use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Response};
use tonic::{Code, Status};

/// What is said of a request that cannot be read. The libraries call it INTERNAL, though it is its sender's to mend.
pub const UNREADABLE: &str = "the request is not a message of the call's type in protobuf: \
    send it as control.proto of this version says";
/// The same of a service that is asked after and unknown.
const UNKNOWN_SERVICE: &str = "no service of this name is watched: ask for twinseal.v1.Control, or for the whole server by an empty name";

/// The same of a method.
const UNKNOWN_METHOD: &str = "this node has no such method: it is of another version than the client; reflection lists what it has";

/// An answer of a library that is an error without our words, in these.
pub fn ours(response: Response<Body>) -> Response<Body> {
    match said(response.headers()) {
        Some(status) => status.into_http(),
        None => response,
    }
}

/// What is said in place of a library's words. Those of this server that are INTERNAL are told apart by how they begin.
fn said(headers: &HeaderMap) -> Option<Status> {
    let status = Status::from_header_map(headers)?;
    match (status.code(), status.message()) {
        (Code::Internal, text) if unreadable(text) => Some(Status::invalid_argument(UNREADABLE)),
        (Code::NotFound, "service not registered") => Some(Status::not_found(UNKNOWN_SERVICE)),
        (Code::Unimplemented, "") => Some(Status::unimplemented(UNKNOWN_METHOD)),
        _ => None,
    }
}

/// Whether these are a library's words for a request that cannot be read.
pub fn unreadable(text: &str) -> bool {
    let beginnings = [
        "failed to decode Protobuf message",
        "Missing request message",
        "Unexpected EOF decoding stream",
    ];
    beginnings.iter().any(|it| text.starts_with(it))
}
