//! Errors as gRPC's libraries know them: the details of a status are a `google.rpc.Status`, which carries further messages.

use prost::{Message, Name};
use prost_types::Any;
use tonic::{Code, Status};
pub use tonic_types::Status as Rich;
pub use tonic_types::pb::{BadRequest, ErrorInfo, bad_request::FieldViolation};

use crate::v1;

/// The messages of this crate and of gRPC that details have, as an encoded `google.protobuf.FileDescriptorSet`: with it
/// reflection can tell of them.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic_types::pb::FILE_DESCRIPTOR_SET;
/// The domain of our [`ErrorInfo`]s.
pub const DOMAIN: &str = "twinseal";
/// What every type's name in an [`Any`] begins with.
const TYPES: &str = "type.googleapis.com/";

impl Name for v1::Refusal {
    const NAME: &'static str = "Refusal";
    const PACKAGE: &'static str = "twinseal.v1";
}

impl Name for v1::AccessDenied {
    const NAME: &'static str = "AccessDenied";
    const PACKAGE: &'static str = "twinseal.v1";
}

/// A status with details. In the headers they take four thirds of their size.
pub fn status(code: Code, message: String, details: Vec<Any>) -> Status {
    let rich = Rich {
        code: code.into(),
        message: message.clone(),
        details,
    };
    Status::with_details(code, message, rich.encode_to_vec().into())
}

/// A message of ours, as details have it.
pub fn any<T: Name>(message: &T) -> Any {
    Any {
        type_url: format!("{TYPES}{}", T::full_name()),
        value: message.encode_to_vec(),
    }
}

/// What every client can read: of which kind it is, and facts about it.
pub fn info<const N: usize>(reason: &str, metadata: [(&str, String); N]) -> Any {
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value));
    let info = ErrorInfo {
        reason: reason.to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: metadata.into(),
    };
    Any {
        type_url: format!("{TYPES}google.rpc.ErrorInfo"),
        value: info.encode_to_vec(),
    }
}

/// Which fields of a request are wrong, for every client to read.
pub fn bad_request(field_violations: Vec<FieldViolation>) -> Any {
    Any {
        type_url: format!("{TYPES}google.rpc.BadRequest"),
        value: BadRequest { field_violations }.encode_to_vec(),
    }
}

/// The message of this type in a status's details, if there is one.
pub fn detail<T: Name + Default>(status: &Status) -> Option<T> {
    let rich = Rich::decode(status.details()).ok()?;
    let name = T::full_name();
    let is_it = |any: &&Any| any.type_url.rsplit('/').next() == Some(&*name);
    let any = rich.details.iter().find(is_it)?;
    T::decode(any.value.as_slice()).ok()
}
