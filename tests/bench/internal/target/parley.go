package target

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"parley.example/pkg/token"
	"parley.example/tests/bench/internal/proc"
	"parley.example/tests/bench/internal/ws"
)

// Variant is a way to run Parley.
type Variant struct {
	Label      string
	AllInOne   bool // one process with SQLite
	Cluster    bool // three nats-servers, R3, every write synced to disk
	Partitions int  // 0: Parley's default
	Contacts   int  // of each user, by consent; 0: everybody is everybody's
}

type parley struct {
	name    string
	group   *proc.Group
	doors   []door
	seed    []byte // of the key that signs tokens
	signer  *token.Signer
	tokens  sync.Map // tokenKey → access token
	admin   map[string]string
	settled func(context.Context) error
	carried func() (Carried, error)
	before  []func() // to do before the processes are stopped
	after   []func() // to do when they have ended
}

// Parley starts the variant and puts the accounts into its database.
func Parley(o Options, v Variant) (_ Target, err error) {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // it never fails
	p := &parley{name: v.Label, group: proc.NewGroup(o.Work), admin: map[string]string{}, seed: seed, signer: token.NewSigner(ed25519.NewKeyFromSeed(seed))}
	p.settled = p.quiet
	defer func() {
		if err != nil {
			p.Stop()
		}
	}()
	env := []string{
		"PARLEY_LOG_LEVEL=warn",
		"PARLEY_TOKEN_KEY=" + base64.StdEncoding.EncodeToString(seed),
		// All load comes from one address, and faster than people type.
		"PARLEY_HTTP_RATE=100000", "PARLEY_HTTP_BURST=100000", "PARLEY_ADDRESS_CONNECTIONS=100000", "PARLEY_CONNECTIONS=100000",
		"PARLEY_MESSAGES_PER_MINUTE=100000000", "PARLEY_MESSAGE_BURST=1000000", "PARLEY_FRAMES_PER_SECOND=1000000",
		"PARLEY_LOGIN_TRIES_ADDRESS=1000000",
		// The old clients are deaf for 3 s after they have connected; those of the benchmark are not.
		"PARLEY_SOCKETIO_DELAY=0s",
	}
	if v.Contacts > 0 {
		env = append(env, "PARLEY_DIRECTORY_MODE=roster")
	}
	if v.Partitions > 0 {
		env = append(env, "PARLEY_PARTITIONS="+strconv.Itoa(v.Partitions))
	}
	if v.AllInOne {
		return p, p.startAllInOne(o, env)
	}
	return p, p.startServices(o, v, env)
}

func (p *parley) startServices(o Options, v Variant, env []string) error {
	kind := natsSingle
	if v.Cluster {
		kind = natsCluster
		env = append(env, "PARLEY_NATS_REPLICAS=3")
	}
	natsURL, monitors, err := startNATS(p.group, o, "nats", kind)
	if err != nil {
		return err
	}
	redisURL, err := startRedis(p.group, o)
	if err != nil {
		return err
	}
	sqlURL, remove, err := startPostgres(p.group)
	if err != nil {
		return err
	}
	p.after = append(p.after, remove)
	env = append(env, "PARLEY_NATS_URL="+natsURL, "PARLEY_REDIS_URL="+redisURL, "PARLEY_SQL_URL="+sqlURL)
	for _, name := range []string{"auth", "history", "presence"} {
		if err := p.startService(o, name, env); err != nil {
			return err
		}
	}
	// Before a gateway reads the directory.
	if err := addUsers(sqlURL, o.Users); err != nil {
		return err
	}
	if v.Contacts > 0 {
		if err := addContacts(sqlURL, o.Users, v.Contacts); err != nil {
			return err
		}
	}
	for i := range o.doors() {
		if err := p.startDoor(fmt.Sprintf("gateway-%d", i), o, env); err != nil {
			return err
		}
	}
	w, err := watchHistory(natsURL)
	if err != nil {
		return err
	}
	p.before = append(p.before, w.close)
	p.settled = w.wait
	p.carried, err = watchPresence(w.nc, monitors)
	if err != nil {
		return err
	}
	return nil
}

// startService starts one of the services behind the gateway and waits until it is ready.
func (p *parley) startService(o Options, name string, env []string) error {
	addr, env, err := p.adminOf(name, env)
	if err != nil {
		return err
	}
	s, err := p.group.Start(proc.Spec{Name: name, Path: filepath.Join(o.Bin, name), Dir: o.Work, Env: env})
	if err != nil {
		return err
	}
	return s.Wait(name+" is ready", startTimeout, func() error { return ready("http://" + addr + "/readyz") })
}

// adminOf gives a process a private port, for its profiles.
func (p *parley) adminOf(name string, env []string) (string, []string, error) {
	port, err := proc.FreePort()
	if err != nil {
		return "", nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	p.admin[name] = addr
	return addr, append(slices.Clip(env), "PARLEY_ADMIN="+addr), nil
}

// startDoor starts a process that accepts clients.
func (p *parley) startDoor(name string, o Options, env []string) error {
	_, env, err := p.adminOf(name, env)
	if err != nil {
		return err
	}
	port, err := proc.FreePort()
	if err != nil {
		return err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	s, err := p.group.Start(proc.Spec{Name: name, Path: filepath.Join(o.Bin, "gateway"), Dir: o.Work, Env: append(env, "PARLEY_HTTP="+addr)})
	if err != nil {
		return err
	}
	p.doors = append(p.doors, door{addr, s})
	return s.Wait(name+" is ready", startTimeout, func() error { return ready("http://" + addr + "/readyz") })
}

// startAllInOne starts `parley serve` once to make its database, and again when the accounts are in it.
func (p *parley) startAllInOne(o Options, env []string) error {
	data := filepath.Join(o.Work, "data")
	_, env, err := p.adminOf("parley", env)
	if err != nil {
		return err
	}
	port, err := proc.FreePort()
	if err != nil {
		return err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	spec := proc.Spec{Name: "parley", Path: filepath.Join(o.Bin, "parley"), Dir: o.Work, Env: env, Args: []string{"serve", "--http", addr, "--data", data}}
	serving := func(s *proc.Process) error {
		return s.Wait("it is ready", startTimeout, func() error {
			if !strings.Contains(s.LogTail(), "ready http://") {
				return errors.New("it has not said so")
			}
			return nil
		})
	}
	first, err := proc.Start(spec, o.Work)
	if err != nil {
		return err
	}
	err = serving(first)
	first.Stop(syscall.SIGTERM)
	if err != nil {
		return err
	}
	if err := addUsers("sqlite:"+filepath.Join(data, "parley.db"), o.Users); err != nil {
		return err
	}
	s, err := p.group.Start(spec)
	if err != nil {
		return err
	}
	p.doors = append(p.doors, door{addr, s})
	return serving(s)
}

func ready(url string) error {
	c := http.Client{Timeout: time.Second}
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

func (p *parley) Name() string              { return p.name }
func (p *parley) Doors() int                { return len(p.doors) }
func (p *parley) Servers() *proc.Group      { return p.group }
func (p *parley) Front(d int) *proc.Process { return p.doors[d].p }

// Admin implements Profiled.
func (p *parley) Admin() map[string]string { return p.admin }

// Addr implements HTTP.
func (p *parley) Addr(d int) string { return p.doors[d].addr }

func (p *parley) Settle(ctx context.Context) error { return p.settled(ctx) }

// quiet waits until the servers use less than a tenth of a core: the all-in-one's NATS cannot be asked from outside.
func (p *parley) quiet(ctx context.Context) error {
	const interval = 500 * time.Millisecond
	last, err := p.group.Usage()
	for err == nil {
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return ctx.Err()
		}
		var now proc.Usage
		if now, err = p.group.Usage(); err == nil && now.CPU-last.CPU < interval/10 {
			return nil
		}
		last = now
	}
	return err
}

func (p *parley) Stop() {
	for _, f := range p.before {
		f()
	}
	p.group.Stop()
	for _, f := range p.after {
		f()
	}
}

// tokenKey says what a token is for.
type tokenKey struct{ user, scope string }

func (p *parley) token(user, scope string) (string, error) {
	k := tokenKey{user, scope}
	if t, ok := p.tokens.Load(k); ok {
		return t.(string), nil
	}
	now := time.Now()
	t, err := p.signer.Sign(token.Claims{Username: user, UID: 1, SID: "bench-" + user, Scope: scope, Issued: now, Expires: now.Add(6 * time.Hour)})
	p.tokens.Store(k, t)
	return t, err
}

func (p *parley) Open(ctx context.Context, d int, c Client) (Conn, string, error) {
	join := []byte(`{"event":"join","data":{"rooms":"*"}}`)
	if c.Resume != "" {
		join = fmt.Appendf(nil, `{"event":"join","data":{"rooms":"*","resume":%q}}`, c.Resume)
	}
	return p.openNative(ctx, d, c, join)
}

func (p *parley) openNative(ctx context.Context, d int, c Client, join []byte) (_ Conn, resume string, err error) {
	tok, err := p.token(c.User, token.ScopeNative)
	if err != nil {
		return nil, "", err
	}
	conn, err := ws.Dial(ctx, p.doors[d].addr, c.Local, "/v1/ws", http.Header{"Authorization": {"Bearer " + tok}})
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
		defer conn.SetDeadline(time.Time{})
	}
	if err := conn.Write(join); err != nil {
		return nil, "", err
	}
	buf := make([]byte, 2<<10)
	for {
		b, err := conn.Read(buf)
		if err != nil {
			return nil, "", fmt.Errorf("join as %s: %w", c.User, err)
		}
		if c.Got != nil {
			c.Got(b)
		}
		switch {
		case bytes.HasPrefix(b, errorFrame):
			return nil, "", fmt.Errorf("join as %s: %s", c.User, b)
		case bytes.HasPrefix(b, caughtUpFrame):
			var f struct{ Data struct{ Resume string } }
			err := json.Unmarshal(b, &f)
			return conn, f.Data.Resume, err
		}
	}
}

var (
	receivedFrame = []byte(`{"event":"received_message"`)
	acceptedFrame = []byte(`{"event":"message_accepted"`)
	errorFrame    = []byte(`{"event":"error"`)
	caughtUpFrame = []byte(`{"event":"caught_up"`)
)

func (p *parley) Kind(frame []byte) Kind {
	switch {
	case bytes.HasPrefix(frame, receivedFrame):
		return Delivered
	case bytes.HasPrefix(frame, acceptedFrame):
		return Accepted
	case bytes.HasPrefix(frame, errorFrame):
		return Refused
	}
	return Other
}

func (p *parley) AppendSend(b []byte, from, to string, n int64, content string) []byte {
	return appendSend(b, from, to, n, content)
}

func appendSend(b []byte, from, to string, n int64, content string) []byte {
	b = append(b, `{"event":"client_sends_message","data":{"conversation_room":"`...)
	b = append(append(append(b, from...), '&'), to...)
	b = append(append(append(b, `","content":"`...), content...), `"},"id":"m`...)
	b = strconv.AppendInt(b, n, 36)
	return append(b, `"}`...)
}

// remote is what another process needs to open connections.
type remote struct {
	Name  string
	Addrs []string
	Seed  []byte
}

// Remote implements Remote.
func (p *parley) Remote() json.RawMessage {
	r := remote{Name: p.name, Seed: p.seed}
	for _, d := range p.doors {
		r.Addrs = append(r.Addrs, d.addr)
	}
	b, _ := json.Marshal(r) // strings and bytes
	return b
}

// Dial makes a Target of what Remote returned. It can only Open.
func Dial(body json.RawMessage) (Target, error) {
	var r remote
	if err := json.Unmarshal(body, &r); err != nil || len(r.Seed) != ed25519.SeedSize {
		return nil, errors.New("the description of a system could not be read")
	}
	p := &parley{name: r.Name, seed: r.Seed, signer: token.NewSigner(ed25519.NewKeyFromSeed(r.Seed))}
	for _, a := range r.Addrs {
		p.doors = append(p.doors, door{addr: a})
	}
	return p, nil
}
