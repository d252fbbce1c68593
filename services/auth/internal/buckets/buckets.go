// Package buckets writes what gateways need to judge a token without asking: public keys and revocations, in
// JetStream KV.
package buckets

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"parley.example/pkg/api"
	"parley.example/pkg/subject"
)

const (
	// markerTTL is how long a marker stays that tells watchers of an entry that ran out.
	markerTTL = time.Minute
	// maxBytes bounds a bucket; a revocation takes about 100 bytes.
	maxBytes = 64 << 20
	// margin covers clocks that differ, beyond the end of a token's life.
	margin = time.Minute
)

// Buckets is safe for concurrent use.
type Buckets struct {
	js       jetstream.JetStream
	replicas int
	life     time.Duration
}

// New makes no contact yet. life is that of the longest token.
func New(nc *nats.Conn, replicas int, life time.Duration) (*Buckets, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	return &Buckets{js, replicas, life}, nil
}

// Publish makes both buckets, when they are not there or not as they should be, and puts the public key into
// theirs. It may be repeated, by many replicas.
func (b *Buckets) Publish(ctx context.Context, kid string, key ed25519.PublicKey) error {
	keys, err := b.ensure(ctx, jetstream.KeyValueConfig{
		Bucket: api.KeysBucket, Description: "public keys of access tokens", History: 1,
		Storage: jetstream.FileStorage, Replicas: b.replicas, MaxBytes: maxBytes,
	})
	if err != nil {
		return err
	}
	if _, err := b.ensure(ctx, jetstream.KeyValueConfig{
		Bucket: api.RevokedBucket, Description: "logins and users whose tokens are void", History: 1,
		Storage: jetstream.FileStorage, Replicas: b.replicas, MaxBytes: maxBytes,
		TTL: b.life + margin, LimitMarkerTTL: markerTTL,
	}); err != nil {
		return err
	}
	value := base64.RawURLEncoding.EncodeToString(key)
	switch e, err := keys.Get(ctx, kid); {
	case err == nil && string(e.Value()) == value:
		return nil
	case err != nil && !errors.Is(err, jetstream.ErrKeyNotFound):
		return fmt.Errorf("read the public key: %w", err)
	}
	if _, err := keys.PutString(ctx, kid, value); err != nil {
		return fmt.Errorf("publish the public key: %w", err)
	}
	return nil
}

// ensure makes or corrects a bucket. It never shortens a TTL: tokens may be out that were made to live longer.
func (b *Buckets) ensure(ctx context.Context, want jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	kv, err := b.js.KeyValue(ctx, want.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = b.js.CreateOrUpdateKeyValue(ctx, want) // another replica may be as quick
	}
	if err != nil {
		return nil, fmt.Errorf("open the bucket %s: %w", want.Bucket, err)
	}
	st, err := kv.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the bucket %s: %w", want.Bucket, err)
	}
	have := st.Config()
	if want.TTL > 0 {
		want.TTL = max(want.TTL, have.TTL)
	}
	if have.TTL == want.TTL && have.Replicas == want.Replicas && have.MaxBytes == want.MaxBytes && have.LimitMarkerTTL == want.LimitMarkerTTL {
		return kv, nil
	}
	if kv, err = b.js.UpdateKeyValue(ctx, want); err != nil {
		return nil, fmt.Errorf("update the bucket %s: %w", want.Bucket, err)
	}
	return kv, nil
}

// RevokeLogin makes all access tokens of a login void, for good. life is how long the longest of them lives. It may be repeated.
func (b *Buckets) RevokeLogin(ctx context.Context, sid string, life time.Duration, now time.Time) error {
	kv, err := b.js.KeyValue(ctx, api.RevokedBucket)
	if err != nil {
		return fmt.Errorf("open the bucket of revocations: %w", err)
	}
	// An entry that lives no longer than its tokens keeps the bucket, and every gateway's copy, small. Only Create takes a TTL.
	_, err = kv.Create(ctx, "sid."+sid, seconds(now), jetstream.KeyTTL(min(life, b.life)+margin))
	if err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
		return fmt.Errorf("revoke a login: %w", err)
	}
	return nil
}

// RevokeUser makes all access tokens void that a user was given up to now. It may be repeated.
func (b *Buckets) RevokeUser(ctx context.Context, username string, now time.Time) error {
	kv, err := b.js.KeyValue(ctx, api.RevokedBucket)
	if err != nil {
		return fmt.Errorf("open the bucket of revocations: %w", err)
	}
	if _, err := kv.Put(ctx, "user."+subject.Token(username), seconds(now)); err != nil {
		return fmt.Errorf("revoke a user: %w", err)
	}
	return nil
}

// RevokeBegan makes all access tokens of a user's logins void that began up to then. It may be repeated; the latest time counts, whoever writes
// last.
func (b *Buckets) RevokeBegan(ctx context.Context, username string, upTo time.Time) error {
	kv, err := b.js.KeyValue(ctx, api.RevokedBucket)
	if err != nil {
		return fmt.Errorf("open the bucket of revocations: %w", err)
	}
	key, value := "began."+subject.Token(username), strconv.AppendInt(nil, upTo.UnixMilli(), 10)
	for {
		e, err := kv.Get(ctx, key)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			_, err = kv.Create(ctx, key, value)
		case err != nil:
			return fmt.Errorf("read a revocation: %w", err)
		default:
			if at, err := strconv.ParseInt(string(e.Value()), 10, 64); err == nil && at >= upTo.UnixMilli() {
				return nil
			}
			_, err = kv.Update(ctx, key, value, e.Revision())
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch): // another one was first
			return fmt.Errorf("revoke the logins of a user: %w", err)
		}
	}
}

// LockOut is RevokeUser for one who was disabled: gateways tell why.
func (b *Buckets) LockOut(ctx context.Context, username string, now time.Time) error {
	kv, err := b.js.KeyValue(ctx, api.RevokedBucket)
	if err != nil {
		return fmt.Errorf("open the bucket of revocations: %w", err)
	}
	if _, err := kv.Put(ctx, "disabled."+subject.Token(username), seconds(now)); err != nil {
		return fmt.Errorf("lock a user out: %w", err)
	}
	return b.RevokeUser(ctx, username, now)
}

// LetIn takes back why the tokens of the user are void; void they stay.
func (b *Buckets) LetIn(ctx context.Context, username string) error {
	kv, err := b.js.KeyValue(ctx, api.RevokedBucket)
	if err == nil {
		err = kv.Delete(ctx, "disabled."+subject.Token(username))
	}
	if err != nil {
		return fmt.Errorf("let a user in: %w", err)
	}
	return nil
}

func seconds(t time.Time) []byte { return strconv.AppendInt(nil, t.Unix(), 10) }
