package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/sqldb"
	"parley.example/pkg/streams"
	"parley.example/pkg/subject"
	"parley.example/services/history/internal/store"
)

// Admin exports and erases what one person said. After a failure it may be repeated.
type Admin struct {
	store *store.Store
	js    jetstream.JetStream
	log   *slog.Logger
	close func() error
}

// Admin is the administration of this replica's messages.
func (s *Service) Admin() *Admin { return &Admin{store: s.store, js: s.js, log: s.log} }

// OpenAdmin works beside the services of a deployment, over its SQL and NATS. It changes no schema. Export needs no NATS.
func OpenAdmin(sql sqldb.Config, nc *nats.Conn, log *slog.Logger) (*Admin, error) {
	st, err := store.Open(sql)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return &Admin{store: st, js: js, log: log, close: st.Close}, nil
}

// Close ends what OpenAdmin began.
func (a *Admin) Close() error {
	if a.close == nil {
		return nil
	}
	return a.close()
}

// Message as the export has it. One without text was erased together with its sender.
type Message struct {
	Seq     int64     `json:"seq"`
	Sender  string    `json:"sender"`
	ID      string    `json:"id"`
	Content string    `json:"content"`
	SentAt  time.Time `json:"sent_at"`
}

// Conversation as the export has it, with the user's own markers.
type Conversation struct {
	Room         string `json:"room"`
	Peer         string `json:"peer"`
	ReadSeq      int64  `json:"read_seq"`
	DeliveredSeq int64  `json:"delivered_seq"`
}

// Device that the user named.
type Device struct {
	Name string    `json:"name"`
	Used time.Time `json:"used"`
}

// Devices of a user, as far as the user named them.
func (a *Admin) Devices(ctx context.Context, user string) ([]Device, error) {
	list, err := a.store.Devices(ctx, user)
	out := make([]Device, 0, len(list))
	for _, d := range list {
		out = append(out, Device{d.Name, d.Used.UTC()})
	}
	return out, err
}

// Conversations calls each for every conversation of a user; messages goes through its messages, oldest first.
func (a *Admin) Conversations(ctx context.Context, user string, each func(c Conversation, messages func(func(Message) error) error) error) error {
	for req := (api.ConversationsRequest{Username: user, Limit: 200}); ; {
		page, err := a.store.Conversations(ctx, req)
		if err != nil {
			return err
		}
		for _, c := range page.Conversations {
			err := each(Conversation{c.Room, c.Peer, c.ReadSeq, c.DeliveredSeq}, func(f func(Message) error) error {
				return a.messages(ctx, api.PageRequest{A: c.LastMessage.A, B: c.LastMessage.B, After: new(int64), Limit: 200}, f)
			})
			if err != nil {
				return err
			}
		}
		if req.After = page.Next; page.Next == "" {
			return nil
		}
	}
}

func (a *Admin) messages(ctx context.Context, req api.PageRequest, f func(Message) error) error {
	for {
		page, err := a.store.Page(ctx, req)
		if err != nil {
			return err
		}
		for _, m := range page.Messages {
			req.After = &m.Seq
			if err := f(Message{m.Seq, m.Sender, m.ID, m.Content, time.UnixMilli(m.SentAt).UTC()}); err != nil {
				return err
			}
		}
		if !page.More {
			return nil
		}
	}
}

// Erase takes the content of everything that user (registered form) ever sent, from the streams and from SQL, and what the user read. The places of
// the messages stay, without text: the conversations belong to the other person as well. The user must not be able to send any
// more. ctx bounds how long it waits for SQL to have what the streams have.
func (a *Admin) Erase(ctx context.Context, user string) (messages int, err error) {
	if err := a.caughtUp(ctx); err != nil {
		return 0, err
	}
	err = a.store.Overwrite(ctx, func() error {
		rooms, parts, err := a.store.RoomsOf(ctx, user)
		if err != nil {
			return err
		}
		for i, rm := range rooms {
			n, err := a.eraseRoom(ctx, parts[i], rm, user)
			if messages += n; err != nil {
				return err
			}
		}
		return a.store.ForgetReader(ctx, user)
	})
	return messages, err
}

func (a *Admin) eraseRoom(ctx context.Context, p int, rm room.Room, user string) (messages int, err error) {
	stream, err := a.js.Stream(ctx, subject.Stream(p))
	if err != nil {
		return 0, fmt.Errorf("look at a stream: %w", err)
	}
	first := int64(stream.CachedInfo().State.FirstSeq) // older ones were purged
	for {
		seqs, err := a.store.Written(ctx, rm, user)
		if err != nil || len(seqs) == 0 {
			return messages, err
		}
		// The stream first: should something fail between, SQL still tells another try what to erase. One by one and overwritten, for a purge
		// leaves the bytes in the file until the server has another use for the place, and takes the other person's messages too.
		for _, seq := range seqs {
			if seq < first {
				continue
			}
			if err := stream.SecureDeleteMsg(ctx, uint64(seq)); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) && !gone(err) {
				return messages, fmt.Errorf("overwrite a message of a stream: %w", err)
			}
		}
		if err := a.store.Empty(ctx, p, rm, user, seqs[len(seqs)-1]); err != nil {
			return messages, err
		}
		messages += len(seqs)
	}
}

// gone reports that there is no message of that seq: the answer has the code of any failed deletion.
func gone(err error) bool {
	var ae *jetstream.APIError
	return errors.As(err, &ae) && strings.Contains(ae.Description, "no message found")
}

// caughtUp waits until SQL has what the streams have now: a message that is only in a stream would come to SQL afterwards.
func (a *Admin) caughtUp(ctx context.Context) error {
	partitions, _, err := streams.Lookup(ctx, a.js)
	if err != nil {
		return err
	}
	last := make([]int64, partitions)
	for p := range partitions {
		stream, err := a.js.Stream(ctx, subject.Stream(p))
		if err != nil {
			return fmt.Errorf("look at a stream: %w", err)
		}
		last[p] = int64(stream.CachedInfo().State.LastSeq)
	}
	for {
		at, err := a.store.Positions(ctx)
		if err != nil {
			return err
		}
		behind := int64(0)
		for p, seq := range last {
			if p >= len(at) {
				return fmt.Errorf("SQL knows %d partitions, NATS has %d", len(at), partitions)
			}
			behind += max(0, seq-at[p])
		}
		if behind == 0 {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("history lags %d messages behind the streams; it must run for this: %w", behind, ctx.Err())
		}
	}
}
