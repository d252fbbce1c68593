package bus

import (
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
)

// requests has one call a subject. Each must reach its subject, and only it.
func requests(r *RPC) map[string]func(context.Context) (any, error) {
	return map[string]func(context.Context) (any, error){
		api.AuthRegister.Subject:  ask(r.AuthRegister, api.Credentials{Username: "Avi", Password: "p", Address: "1.1.1.1"}),
		api.AuthLogin.Subject:     ask(r.AuthLogin, api.Credentials{Username: "Avi"}),
		api.AuthRefresh.Subject:   ask(r.AuthRefresh, api.RefreshRequest{RefreshToken: "r"}),
		api.AuthLogout.Subject:    say(r.AuthLogout, api.LogoutRequest{Username: "Avi", SID: "s"}),
		api.AuthCheck.Subject:     ask(r.AuthCheck, api.Credentials{Username: "Avi", Password: "p"}),
		api.AuthEndLogins.Subject: ask(r.AuthEndLogins, api.EndLoginsRequest{Username: "Avi"}),
		api.AuthUsed.Subject:      say(r.AuthUsed, api.UsedRequest{}),
		api.AuthContacts.Subject:  ask(r.AuthContacts, api.ContactsRequest{Username: "Avi", Limit: 3}),
		api.AuthResolve.Subject:   ask(r.AuthResolve, api.ResolveRequest{Names: []string{"avi"}}),
		api.AuthRelations.Subject: ask(r.AuthRelations, api.RelationsRequest{
			Username: "Avi",
		}),
		api.AuthDirectory.Subject:        ask(r.AuthDirectory, api.DirectoryRequest{Since: 7}),
		api.AuthPutContact.Subject:       ask(r.AuthPutContact, api.PairRequest{Username: "Avi", Peer: "Lisa"}),
		api.AuthDeleteContact.Subject:    say(r.AuthDeleteContact, api.PairRequest{Username: "Avi", Peer: "Lisa"}),
		api.AuthPutBlock.Subject:         say(r.AuthPutBlock, api.PairRequest{Username: "Avi", Peer: "Lisa"}),
		api.AuthDeleteBlock.Subject:      say(r.AuthDeleteBlock, api.PairRequest{Username: "Avi", Peer: "Lisa"}),
		api.HistoryCatchUp.Subject:       ask(r.HistoryCatchUp, api.CatchUpRequest{Items: []api.CatchUpItem{{User: "Avi"}}}),
		api.HistoryPage.Subject:          ask(r.HistoryPage, api.PageRequest{A: "Avi", B: "Lisa"}),
		api.HistoryConversations.Subject: ask(r.HistoryConversations, api.ConversationsRequest{Username: "Avi"}),
		api.HistoryFind.Subject:          ask(r.HistoryFind, api.FindRequest{Sender: "Avi", ID: "m"}),
		api.HistoryRows.Subject:          ask(r.HistoryRows, api.RowsRequest{P: 1, To: 5}),
		api.HistoryMessages.Subject:      ask(r.HistoryMessages, api.MessagesRequest{P: 1, Seqs: []int64{4}}),
		api.HistoryMarks.Subject:         ask(r.HistoryMarks, api.MarksRequest{AgeMS: 5000}),
		api.HistoryConfirm.Subject:       say(r.HistoryConfirm, api.ConfirmRequest{Items: []api.Confirm{{User: "Avi", A: "Avi", B: "Lisa", Seq: 4}}}),
		api.HistoryRead.Subject:          ask(r.HistoryRead, api.ReadRequest{User: "Avi", A: "Avi", B: "Lisa", Seq: 4}),
		api.PresenceSessions.Subject:     say(r.PresenceSessions, api.SessionsRequest{Gateway: "g", Changes: []api.SessionChange{{ID: 1 << 63, User: "Avi"}}}),
		api.PresenceHeartbeat.Subject:    ask(r.PresenceHeartbeat, api.HeartbeatRequest{Gateway: "g"}),
		api.PresenceSnapshot.Subject:     ask(r.PresenceSnapshot, api.SnapshotRequest{Shard: 3}),
		api.PresenceResync.Subject:       say(r.PresenceResync, api.ResyncRequest{Gateway: "g", Shard: 3}),
		api.PresenceLastSeen.Subject:     ask(r.PresenceLastSeen, api.LastSeenRequest{Users: []string{"Avi"}}),
	}
}

func ask[Req, Resp any](f func(context.Context, Req) (Resp, error), req Req) func(context.Context) (any, error) {
	return func(ctx context.Context) (any, error) { return f(ctx, req) }
}

func say[Req any](f func(context.Context, Req) error, req Req) func(context.Context) (any, error) {
	return func(ctx context.Context) (any, error) { return api.Empty{}, f(ctx, req) }
}

// answers has what the services of this test answer, where the zero value would not show a mistake.
var answers = map[string]any{
	api.AuthLogin.Subject:         api.Tokens{AccessToken: "a", RefreshToken: "r", ExpiresIn: 900, Username: "Avi"},
	api.AuthDirectory.Subject:     api.DirectoryResponse{Mode: api.Everyone, Total: 1, Usernames: []string{"Avi"}},
	api.HistoryPage.Subject:       api.PageResponse{Messages: []api.StoredMessage{{Seq: 4, A: "Avi", B: "Lisa", Content: "x"}}, More: true},
	api.PresenceHeartbeat.Subject: api.HeartbeatResponse{Shards: [api.PresenceShards]api.ShardState{3: {Epoch: "e", Resync: true}}},
	api.PresenceLastSeen.Subject:  api.LastSeenResponse{LastSeen: []int64{5}},
}

func openBus(t *testing.T, url string) *Bus {
	t.Helper()
	b, err := Open(natsconn.Config{URL: url}, "test", testx.Quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func serve(t *testing.T, url string, handlers ...rpc.Handler) {
	t.Helper()
	s, err := rpc.Serve(testx.Connect(t, url), "test", "1.0.0", 64, testx.Quiet(), handlers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
}

func TestRequestsReachTheirService(t *testing.T) {
	srv := testx.NatsServer(t)
	calls := requests(openBus(t, srv.ClientURL()).RPC(10 * time.Second))
	for _, s := range subjects(t) {
		if calls[s] == nil {
			t.Errorf("there is no method for %s", s)
		}
	}
	type request struct {
		subject string
		body    []byte
	}
	got := make(chan request, 1)
	var handlers []rpc.Handler
	for s := range calls {
		handlers = append(handlers, rpc.Handler{Subject: s, Answer: func(_ context.Context, body []byte) (any, error) {
			got <- request{s, body}
			if a := answers[s]; a != nil {
				return a, nil
			}
			return api.Empty{}, nil
		}})
	}
	serve(t, srv.ClientURL(), handlers...)
	for subject, call := range calls {
		resp, err := call(t.Context())
		if err != nil {
			t.Errorf("%s: %v", subject, err)
			continue
		}
		req := <-got
		if req.subject != subject || !json.Valid(req.body) || req.body[0] != '{' {
			t.Errorf("%s: %s got %s", subject, req.subject, req.body)
		}
		if want := answers[subject]; want != nil && !reflect.DeepEqual(resp, want) {
			t.Errorf("%s: answered %+v, want %+v", subject, resp, want)
		}
	}
}

// subjects are the request subjects that package api has.
func subjects(t *testing.T) (out []string) {
	t.Helper()
	for _, file := range []string{"api.go", "presence.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), "../../../../pkg/api/"+file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil && strings.HasPrefix(s, "svc.") {
					out = append(out, s)
				}
			}
			return true
		})
	}
	if len(out) < 20 {
		t.Fatalf("only %d subjects were found", len(out))
	}
	return out
}

func wantCode(t *testing.T, err error, code wire.Code) {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func TestRequestsThatFail(t *testing.T) {
	srv := testx.NatsServer(t)
	b := openBus(t, srv.ClientURL())
	release := make(chan struct{})
	serve(t, srv.ClientURL(),
		api.AuthLogin.Handle(func(context.Context, api.Credentials) (api.Tokens, error) {
			return api.Tokens{}, &wire.Error{Code: wire.RateLimited, Message: "slower", RetryAfterMS: 1500}
		}),
		api.AuthLogout.Handle(func(context.Context, api.LogoutRequest) (api.Empty, error) { return api.Empty{}, errors.New("inside") }),
		api.AuthResolve.Handle(func(context.Context, api.ResolveRequest) (api.ResolveResponse, error) {
			<-release
			return api.ResolveResponse{}, nil
		}),
	)
	defer close(release)

	_, err := b.RPC(10*time.Second).AuthLogin(t.Context(), api.Credentials{})
	wantCode(t, err, wire.RateLimited)
	if e := (*wire.Error)(nil); errors.As(err, &e) && e.RetryAfterMS != 1500 {
		t.Errorf("retry_after_ms is %d", e.RetryAfterMS)
	}
	err = b.RPC(10*time.Second).AuthLogout(t.Context(), api.LogoutRequest{})
	wantCode(t, err, wire.Internal)
	if strings.Contains(err.Error(), "inside") {
		t.Errorf("the error tells what is inside: %v", err)
	}
	// Nobody serves it: the answer comes at once, not with the timeout.
	_, err = b.RPC(time.Hour).HistoryPage(t.Context(), api.PageRequest{})
	wantCode(t, err, wire.Unavailable)
	// The shorter of the two waits counts.
	_, err = b.RPC(50*time.Millisecond).AuthResolve(t.Context(), api.ResolveRequest{})
	wantCode(t, err, wire.Unavailable)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = b.RPC(time.Hour).AuthResolve(ctx, api.ResolveRequest{})
	wantCode(t, err, wire.Unavailable)
	// A password may queue for longer than other requests wait.
	if _, err = b.RPC(time.Nanosecond).AuthLogin(t.Context(), api.Credentials{}); err != nil {
		wantCode(t, err, wire.RateLimited)
	}
	// NATS away: at once as well, and well again after it is back.
	srv.Stop()
	testx.Eventually(t, "the bus notices", 10*time.Second, func() bool { return !b.Connected() })
	_, err = b.RPC(time.Hour).AuthLogin(t.Context(), api.Credentials{})
	wantCode(t, err, wire.Unavailable)
	srv.Restart()
	testx.Eventually(t, "requests are answered again", 20*time.Second, func() bool {
		_, err := b.RPC(time.Second).AuthLogin(t.Context(), api.Credentials{})
		var e *wire.Error
		return errors.As(err, &e) && e.Code == wire.RateLimited
	})
}
