//! Why TLS clients are refused, in words for both ends.

use std::io;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::{CertificateError, Error, PeerIncompatible};

/// Refusals that are logged a second; the rest is only counted.
const LOGGED: u32 = 10;

/// Why a handshake failed.
pub(crate) fn handshake(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|it| it.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(error)) => certificate(error),
        Some(Error::NoCertificatesPresented) => "it showed no certificate".to_owned(),
        Some(Error::AlertReceived(alert)) => {
            format!("it refused this node's certificate ({alert:?})")
        }
        Some(Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        )) => "it speaks no TLS 1.3".to_owned(),
        Some(Error::NoApplicationProtocol) => "it speaks no HTTP/2".to_owned(),
        Some(Error::InvalidMessage(_)) => "what it says is no TLS".to_owned(),
        Some(error) => error.to_string(),
        None => match error.kind() {
            io::ErrorKind::TimedOut => "its handshake took too long".to_owned(),
            io::ErrorKind::UnexpectedEof => "it went in the middle of the handshake".to_owned(),
            _ => error.to_string(),
        },
    }
}

/// Why a certificate does not hold.
pub(crate) fn certificate(error: &CertificateError) -> String {
    use CertificateError as Is;
    let why = match error {
        Is::Expired | Is::ExpiredContext { .. } => "its certificate has expired",
        Is::NotValidYet | Is::NotValidYetContext { .. } => {
            "its certificate is not valid yet, by this node's clock"
        }
        Is::UnknownIssuer => "its certificate is of an issuer that control.tls.client_ca has not",
        Is::InvalidPurpose | Is::InvalidPurposeContext { .. } => {
            "its certificate is not for TLS clients (extended key usage clientAuth)"
        }
        Is::BadSignature => "its certificate is not signed by the issuer that it names",
        Is::Revoked => "its certificate was revoked",
        error => return format!("its certificate does not hold: {error}"),
    };
    why.to_owned()
}

/// Lets a few lines a second into the log, however many clients are refused.
#[derive(Default)]
pub(crate) struct Few {
    began: Option<Instant>,
    count: u32,
}

impl Few {
    pub(crate) fn admit(&mut self) -> bool {
        let second = |began: Instant| began.elapsed() < Duration::from_secs(1);
        if !self.began.is_some_and(second) {
            *self = Self {
                began: Some(Instant::now()),
                count: 0,
            };
        }
        self.count += 1;
        self.count <= LOGGED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_in_plain_words() {
        let told = |error: Error| handshake(&io::Error::new(io::ErrorKind::InvalidData, error));
        for (error, words) in [
            (CertificateError::Expired, "has expired"),
            (CertificateError::NotValidYet, "not valid yet"),
            (CertificateError::UnknownIssuer, "control.tls.client_ca"),
            (CertificateError::InvalidPurpose, "clientAuth"),
        ] {
            let told = told(Error::InvalidCertificate(error));
            assert!(told.contains(words), "{told}");
        }
        let told = told(Error::NoCertificatesPresented);
        assert_eq!(told, "it showed no certificate");
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert!(handshake(&late).contains("too long"));
    }

    #[test]
    fn a_flood_is_logged_in_few_lines() {
        let mut few = Few::default();
        let admitted = (0..1000).filter(|_| few.admit()).count();
        assert!((10..=20).contains(&admitted), "{admitted}");
    }
}
