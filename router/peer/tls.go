package peer

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// MinSecret is the shortest secret in bytes that is taken.
const MinSecret = 16

// errStranger says that the other side does not have the cluster's secret.
var errStranger = errors.New("peer: the other side does not have this cluster's secret")

// tlsConfig gives the configuration of both sides. One key pair, derived from the secret and the cluster's name, proves
// membership for all: a side is accepted if it proves in the handshake that it holds the private key. Nothing else of the
// certificate counts, so names, dates and issuers are not looked at. TLS 1.3 signs client and server under different contexts:
// a signature of one cannot be passed off as the other's.
func tlsConfig(secret []byte, cluster string) (*tls.Config, error) {
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("peer: the secret must have at least %d bytes", MinSecret)
	}
	if cluster == "" {
		return nil, errors.New("peer: no cluster name")
	}
	seed, err := hkdf.Key(sha256.New, secret, nil, "future peer\x00"+cluster, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("peer: derive key: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("peer: derive key: not an Ed25519 key")
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "future peer"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		return nil, fmt.Errorf("peer: make certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		// Both turn off the check by names and authorities; VerifyConnection stands in, and runs on both sides always.
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) != 1 {
				return errStranger
			}
			theirs, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			if !ok || subtle.ConstantTimeCompare(theirs, public) != 1 {
				return errStranger
			}
			return nil
		},
		// Links are few and long: nothing is won by resumption, and without it each link proves the key anew.
		SessionTicketsDisabled: true,
		// Small records at a connection's start help browsers, not us.
		DynamicRecordSizingDisabled: true,
		NextProtos:                  []string{"future-peer"},
	}, nil
}
