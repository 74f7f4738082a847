"""A certificate authority of our own, and server certificates that are right or wrong in one way each."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Certificates:
    """`ca`: file of the authority to trust. `pairs`: `good`, `wrong_host`, `expired`; good for localhost."""

    ca: Path
    pairs: dict[str, Pair]


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and one certificate of each kind."""
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _build("Headwater test authority", authority_key, now - 30 * day, now + 30 * day)
    authority = authority.issuer_name(_name("Headwater test authority")).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    ca = folder / "ca.pem"
    ca.write_bytes(_pem(authority.sign(authority_key, hashes.SHA256())))

    def issue(host: str, start: dt.datetime, finish: dt.datetime) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        if host == "localhost":
            names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        leaf = _build(host, key, start, finish).issuer_name(_name("Headwater test authority"))
        leaf = leaf.add_extension(x509.SubjectAlternativeName(names), critical=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(_pem(leaf.sign(authority_key, hashes.SHA256())), private)

    return Certificates(
        ca,
        {
            "good": issue("localhost", now - day, now + day),
            "wrong_host": issue("db.example.org", now - day, now + day),
            "expired": issue("localhost", now - 9 * day, now - day),
        },
    )


def _build(
    name: str, key: ec.EllipticCurvePrivateKey, start: dt.datetime, finish: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(finish)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
