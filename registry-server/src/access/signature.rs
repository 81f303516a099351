//! ring as the cryptography of the `jsonwebtoken` crate, which brings none that kiln could take.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::{hmac, signature};

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

/// Must be called before a token is made or read.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    // An error says that it was done before.
    ONCE.call_once(|| {
        let _ = PROVIDER.install_default();
    });
}

/// Tokens of our own: HMAC-SHA256.
struct Hs256(hmac::Key);

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        hmac::verify(&self.0, message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    match algorithm {
        Algorithm::HS256 => Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

/// Tokens of others: a public key.
struct Public {
    algorithm: Algorithm,
    key: PublicKey,
}

enum PublicKey {
    Bytes(&'static dyn signature::VerificationAlgorithm, Vec<u8>),
    Rsa(&'static signature::RsaParameters, signature::RsaPublicKeyComponents<Vec<u8>>),
}

impl Verifier<Vec<u8>> for Public {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let verified = match &self.key {
            PublicKey::Bytes(algorithm, bytes) => {
                signature::UnparsedPublicKey::new(*algorithm, bytes).verify(message, signature)
            }
            PublicKey::Rsa(parameters, components) => components.verify(parameters, message, signature),
        };
        verified.map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for Public {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    let rsa = match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    };
    let key = match (algorithm, rsa, key.kind()) {
        (Algorithm::HS256, _, DecodingKeyKind::SecretOrDer(secret)) => {
            return Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret))));
        }
        (_, Some(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
            PublicKey::Rsa(parameters, signature::RsaPublicKeyComponents { n: n.clone(), e: e.clone() })
        }
        (_, Some(parameters), DecodingKeyKind::SecretOrDer(der)) => PublicKey::Bytes(parameters, der.clone()),
        (Algorithm::ES256, _, DecodingKeyKind::SecretOrDer(point)) => {
            PublicKey::Bytes(&signature::ECDSA_P256_SHA256_FIXED, point.clone())
        }
        (Algorithm::ES384, _, DecodingKeyKind::SecretOrDer(point)) => {
            PublicKey::Bytes(&signature::ECDSA_P384_SHA384_FIXED, point.clone())
        }
        (Algorithm::EdDSA, _, DecodingKeyKind::SecretOrDer(bytes)) => {
            PublicKey::Bytes(&signature::ED25519, bytes.clone())
        }
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    Ok(Box::new(Public { algorithm: *algorithm, key }))
}
