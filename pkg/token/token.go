// Package token makes and verifies access tokens: JWTs signed with Ed25519 ("EdDSA", RFC 8037).
package token

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Scopes. A token of the old clients' /log_in opens their routes only; its scope is spelt as those that live for 30 days have it.
const (
	ScopeNative = "native"
	ScopeLegacy = "seed"
	ScopeAdmin  = "admin" // may be given beside one of the others, separated by a blank
)

// Errors of Verify. Each token is refused with exactly one of them.
var (
	ErrInvalid = errors.New("the token is not valid")
	ErrExpired = errors.New("the token has expired")
	ErrKey     = errors.New("the token is signed with an unknown key")
)

// issuer and audience keep tokens of another system that shares a key by mistake out.
const (
	issuer   = "parley"
	audience = "parley"
	leeway   = 5 * time.Second // clocks of two machines
	maxBytes = 4096            // a token of ours has about 400
)

// MaxLife is the longest life that a token may have: revocations are remembered for no longer.
const MaxLife = 366 * 24 * time.Hour

// Claims is what a valid token says.
type Claims struct {
	Username string // registered form
	UID      int64  // the user's number in SQL
	SID      string // the login that it belongs to
	Scope    string
	Issued   time.Time
	Expires  time.Time
	// Began is when the login began, in whole milliseconds; Issued in tokens of versions that did not say it.
	Began time.Time
	// Turn is how many refreshes of the login came before: 0 for the token that the password gave.
	Turn int64
}

// Has reports whether the token may be used for a scope. Scopes are separated by blanks.
func (c Claims) Has(scope string) bool {
	for s := range strings.FieldsSeq(c.Scope) {
		if s == scope {
			return true
		}
	}
	return false
}

type jwtClaims struct {
	UID   int64  `json:"uid"`
	SID   string `json:"sid"`
	Scope string `json:"scope"`
	Began int64  `json:"bgn,omitempty"` // Unix ms
	Turn  int64  `json:"trn,omitempty"`
	jwt.RegisteredClaims
}

// Signer signs with one key.
type Signer struct {
	key ed25519.PrivateKey
	kid string
}

// NewSigner takes a private key.
func NewSigner(key ed25519.PrivateKey) *Signer {
	return &Signer{key: key, kid: KeyID(key.Public().(ed25519.PublicKey))}
}

// Public is the key that verifies, and its id.
func (s *Signer) Public() (kid string, key ed25519.PublicKey) {
	return s.kid, s.key.Public().(ed25519.PublicKey)
}

// KeyID names a public key: the first 8 bytes of its SHA-256.
func KeyID(key ed25519.PublicKey) string {
	h := sha256.Sum256(key)
	return base64.RawURLEncoding.EncodeToString(h[:8])
}

// Sign makes a token.
func (s *Signer) Sign(c Claims) (string, error) {
	began := int64(0)
	if !c.Began.IsZero() {
		began = c.Began.UnixMilli()
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwtClaims{
		UID: c.UID, SID: c.SID, Scope: c.Scope, Began: began, Turn: c.Turn,
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Audience: jwt.ClaimStrings{audience}, Subject: c.Username,
			IssuedAt: jwt.NewNumericDate(c.Issued), ExpiresAt: jwt.NewNumericDate(c.Expires),
		},
	})
	t.Header["kid"] = s.kid
	out, err := t.SignedString(s.key)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return out, nil
}

// Verify checks signature, algorithm, issuer, audience and time. keys finds a public key by its id.
// Revocation is the caller's business.
func Verify(tok string, keys func(kid string) (ed25519.PublicKey, bool), now time.Time) (Claims, error) {
	if len(tok) > maxBytes {
		return Claims{}, ErrInvalid
	}
	var c jwtClaims
	_, err := jwt.ParseWithClaims(tok, &c, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		key, ok := keys(kid)
		if !ok {
			return nil, ErrKey
		}
		return key, nil
	},
		// The only algorithm: "none" and HMAC with the public key as secret are refused here.
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway), jwt.WithTimeFunc(func() time.Time { return now }))
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return Claims{}, ErrExpired
	case errors.Is(err, ErrKey):
		return Claims{}, ErrKey
	case err != nil || c.Subject == "" || c.SID == "" || c.IssuedAt == nil || c.ExpiresAt.Sub(c.IssuedAt.Time) > MaxLife:
		return Claims{}, ErrInvalid
	}
	began := c.IssuedAt.Time
	if c.Began > 0 {
		began = time.UnixMilli(c.Began)
	}
	return Claims{
		Username: c.Subject, UID: c.UID, SID: c.SID, Scope: c.Scope, Issued: c.IssuedAt.Time, Expires: c.ExpiresAt.Time,
		Began: began, Turn: c.Turn,
	}, nil
}
