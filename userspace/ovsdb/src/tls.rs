//! TLS as OVS does it: both sides show a certificate, and what is checked is that the peer's chain leads to the configured
//! authority. Names are not compared: `ovs-pki` puts none into certificates that could be.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The files of a TLS identity, as the options `-p`, `-c`, `-C` and `--bootstrap-ca-cert` name them.
///
/// They are read at every connection attempt, so renewed files are used from the next connection on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM private key.
    pub private_key: Option<PathBuf>,
    /// PEM certificate, with any intermediate certificates behind it.
    pub certificate: Option<PathBuf>,
    /// PEM certificate authority that the server's certificate must lead to; the name `none` accepts any server.
    pub ca_certificate: Option<PathBuf>,
    /// When the authority's file does not exist, take the authority from the first server connected to and write it there.
    pub bootstrap_ca: bool,
    /// Which protocol versions may be used, as `--ssl-protocols` says it: names separated by commas or blanks, `-` between two for a
    /// range, `+` behind one for it and all later. All that are supported (TLSv1.2 and TLSv1.3) when absent.
    pub protocols: Option<String>,
    /// The name to ask the server for (server name indication); the remote's host when absent.
    pub server_name: Option<String>,
}

/// The versions that a `--ssl-protocols` names. Versions before 1.2 are known but never used.
fn protocol_versions(text: &str) -> io::Result<Vec<&'static SupportedProtocolVersion>> {
    const NAMES: [&str; 4] = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{text}: {what}"));
    let place = |name: &str| {
        let found = NAMES.iter().position(|known| *known == name);
        found.ok_or_else(|| wrong(&format!("\"{name}\" is not a TLS protocol version")))
    };
    let mut wanted = [false; NAMES.len()];
    for item in text.split([',', ' ', '\t']).filter(|item| !item.is_empty()) {
        let (first, last) = match (item.strip_suffix('+'), item.split_once('-')) {
            (Some(first), _) => (place(first)?, NAMES.len() - 1),
            (None, Some((first, last))) => (place(first)?, place(last)?),
            (None, None) => (place(item)?, place(item)?),
        };
        wanted.iter_mut().take(last + 1).skip(first).for_each(|wanted| *wanted = true);
    }
    let supported = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)];
    let versions: Vec<_> =
        supported.into_iter().filter(|(place, _)| wanted[*place]).map(|(_, version)| version).collect();
    if versions.is_empty() { Err(wrong("no supported TLS protocol version")) } else { Ok(versions) }
}

fn invalid(path: &Path, what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {what}: {error}", path.display()))
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let certificates = read().map_err(|error| invalid(path, "cannot read certificate", error))?;
    if certificates.is_empty() {
        return Err(invalid(path, "cannot read certificate", "file has none"));
    }
    Ok(certificates)
}

/// What a connection is opened with.
pub(crate) struct Connector {
    config: Arc<ClientConfig>,
    /// When the authority is yet to be learned: where it is to be written and the chain that the server showed.
    bootstrap: Option<(PathBuf, Arc<ChainRecorder>)>,
    server_name: Option<String>,
}

impl Connector {
    /// Reads the files.
    pub(crate) fn new(files: &TlsFiles) -> io::Result<Self> {
        let missing = |option: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("ssl remote needs {option}"));
        let key_path = files.private_key.as_deref().ok_or_else(|| missing("a private key (-p)"))?;
        let certificate_path = files.certificate.as_deref().ok_or_else(|| missing("a certificate (-c)"))?;
        let ca_path = files.ca_certificate.as_deref().ok_or_else(|| missing("a CA certificate (-C)"))?;
        let key = PrivateKeyDer::from_pem_file(key_path)
            .map_err(|error| invalid(key_path, "cannot read private key", error))?;
        let chain = certificates(certificate_path)?;
        let versions = protocol_versions(files.protocols.as_deref().unwrap_or("TLSv1.2+"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .map_err(io::Error::other)?
            .dangerous();
        let mut bootstrap = None;
        let builder = if ca_path.as_os_str() == "none" {
            builder.with_custom_certificate_verifier(Arc::new(ChainRecorder { provider, chain: Mutex::default() }))
        } else if files.bootstrap_ca && !ca_path.exists() {
            let recorder = Arc::new(ChainRecorder { provider, chain: Mutex::default() });
            bootstrap = Some((ca_path.to_owned(), recorder.clone()));
            builder.with_custom_certificate_verifier(recorder)
        } else {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca_path)? {
                roots.add(certificate).map_err(|error| invalid(ca_path, "not a CA certificate", error))?;
            }
            builder.with_custom_certificate_verifier(Arc::new(ChainVerifier { provider, roots }))
        };
        let config = builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| invalid(key_path, "private key and certificate cannot be used", error))?;
        Ok(Connector { config: Arc::new(config), bootstrap, server_name: files.server_name.clone() })
    }

    /// Does the handshake. When the authority was to be learned, it is written and the connection given up: the
    /// next is checked against it.
    pub(crate) async fn connect(self, host: &str, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = self.server_name.as_deref().unwrap_or(host.split('%').next().unwrap_or(host)).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let stream = tokio_rustls::TlsConnector::from(self.config).connect(name, tcp).await?;
        let Some((path, recorder)) = self.bootstrap else { return Ok(stream) };
        let chain = recorder.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let root = chain
            .last()
            .filter(|root| is_self_issued(root))
            .ok_or_else(|| io::Error::other("server did not show a self-signed CA certificate to bootstrap from"))?;
        write_ca(&path, root)?;
        tracing::info!(target: "stream_ssl", "successfully bootstrapped CA cert to {}", path.display());
        Err(io::Error::other("CA certificate bootstrapped; connecting again to check it"))
    }
}

fn write_ca(path: &Path, certificate: &CertificateDer<'_>) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(named)?;
    let written = file.write_all(pem(certificate).as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a certificate would keep every later start from bootstrapping.
        let _ = std::fs::remove_file(path);
        return Err(named(error));
    }
    Ok(())
}

/// The certificate in PEM (RFC 7468).
fn pem(certificate: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for group in certificate.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, &byte| (bits << 8) | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            encoded.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Whether issuer and subject of a certificate are the same name (RFC 5280 section 4.1).
fn is_self_issued(certificate: &[u8]) -> bool {
    fn names(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
        let (_, outer, _) = element(certificate)?;
        let (_, mut rest, _) = element(outer)?;
        let (tag, _, after) = element(rest)?;
        // The version is optional; serial number and signature algorithm follow.
        if tag == 0xa0 {
            rest = after;
        }
        let (_, _, rest) = element(rest)?;
        let (_, _, rest) = element(rest)?;
        let (_, issuer, rest) = element(rest)?;
        let (_, _, rest) = element(rest)?;
        let (_, subject, _) = element(rest)?;
        Some((issuer, subject))
    }
    names(certificate).is_some_and(|(issuer, subject)| issuer == subject)
}

/// Tag and content of the DER element that `der` starts with, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        0..0x80 => (usize::from(first), rest),
        _ => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if bytes.len() > 4 {
                return None;
            }
            (bytes.iter().fold(0, |length, &byte| (length << 8) | usize::from(byte)), rest)
        }
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// Accepts a certificate whose chain leads to one of the roots, whatever names it has.
#[derive(Debug)]
struct ChainVerifier {
    provider: Arc<CryptoProvider>,
    roots: RootCertStore,
}

/// Accepts any certificate and remembers the chain: for `none`, and for learning the authority from the first server, trusting
/// that nobody sits in between that once. Both are what the user asked for.
#[derive(Debug)]
struct ChainRecorder {
    provider: Arc<CryptoProvider>,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

macro_rules! signature_checks {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    signature_checks!();
}

impl ServerCertVerifier for ChainRecorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain =
            std::iter::once(end_entity).chain(intermediates).map(|certificate| certificate.clone().into_owned());
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
        Ok(ServerCertVerified::assertion())
    }

    signature_checks!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(text: &str) -> String {
        match protocol_versions(text) {
            Ok(versions) => versions.iter().map(|version| format!("{version:?}")).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn protocol_versions_are_read_as_ovs_writes_them() {
        assert_eq!(versions("TLSv1.2"), "TLSv1_2");
        assert_eq!(versions("TLSv1.3,TLSv1.2"), "TLSv1_2 TLSv1_3");
        assert_eq!(versions("TLSv1 TLSv1.1  TLSv1.2"), "TLSv1_2");
        assert_eq!(versions("TLSv1+"), "TLSv1_2 TLSv1_3");
        assert_eq!(versions("TLSv1.1-TLSv1.2"), "TLSv1_2");
        assert_eq!(versions("TLSv1.1"), "TLSv1.1: no supported TLS protocol version");
        assert_eq!(versions("TLSv1.2,SSLv3"), "TLSv1.2,SSLv3: \"SSLv3\" is not a TLS protocol version");
        assert_eq!(versions(""), ": no supported TLS protocol version");
    }

    #[test]
    fn pem_is_what_the_reader_takes() {
        for length in [0, 1, 2, 3, 47, 48, 49, 300] {
            let der: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let text = pem(&der);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
            let read = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(read.as_ref(), der);
        }
    }

    #[test]
    fn damaged_certificates_are_not_self_issued() {
        for der in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x89\x01", b"\x30\x02\x30\x00"] {
            assert!(!is_self_issued(der), "{der:?}");
        }
    }
}
