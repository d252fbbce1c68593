package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"parley.example/client/wire"
)

// Socket is where a `parley serve` takes the administration of its users: in its data folder, which only its owner can enter.
func Socket(data string) string { return filepath.Join(data, "admin.sock") }

// answer is what comes back, or why not.
type answer struct {
	Error    *wire.Error `json:"error,omitempty"`
	Username string      `json:"username,omitempty"`
	Count    int         `json:"count,omitempty"`
	Page     *Page       `json:"page,omitempty"`
}

type request struct {
	Name     string `json:"name,omitempty"`
	Password string `json:"password,omitempty"`
	Disabled bool   `json:"disabled,omitempty"`
	After    string `json:"after,omitempty"`
}

// maxRequest is more than the longest name and password take.
const maxRequest = 64 << 10

// trailer that ends an export which is complete.
const complete = "Parley-Complete"

// Server serves Users on a Unix socket.
type Server struct {
	ln  net.Listener
	srv *http.Server
	log *slog.Logger
}

// Listen takes the socket of a data folder that this process has locked: one that lies there is of a process that died.
func Listen(data string, log *slog.Logger) (*Server, error) {
	path := Socket(data)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove an old socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for parley user: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("close the socket to others: %w", err), ln.Close())
	}
	return &Server{ln: ln, log: log}, nil
}

// Run serves what users gives until ctx ends; users may wait until it can.
func (s *Server) Run(ctx context.Context, users func(context.Context) (Users, error)) error {
	mux := http.NewServeMux()
	handle := func(name string, f func(context.Context, Users, request) (answer, error)) {
		mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
			s.reply(w, r, users, f)
		})
	}
	handle("add", func(ctx context.Context, u Users, r request) (answer, error) {
		name, err := u.Add(ctx, r.Name, r.Password)
		return answer{Username: name}, err
	})
	handle("passwd", func(ctx context.Context, u Users, r request) (answer, error) {
		n, err := u.SetPassword(ctx, r.Name, r.Password)
		return answer{Count: n}, err
	})
	handle("disable", func(ctx context.Context, u Users, r request) (answer, error) {
		return answer{}, u.SetDisabled(ctx, r.Name, r.Disabled)
	})
	handle("list", func(ctx context.Context, u Users, r request) (answer, error) {
		p, err := u.List(ctx, r.After)
		return answer{Page: &p}, err
	})
	handle("erase", func(ctx context.Context, u Users, r request) (answer, error) {
		n, err := u.Erase(ctx, r.Name)
		return answer{Count: n}, err
	})
	mux.HandleFunc("POST /export", func(w http.ResponseWriter, r *http.Request) { s.export(w, r, users) })
	s.srv = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.srv.Close() })
	defer stop()
	if err := s.srv.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve parley user: %w", err)
	}
	return nil
}

func (s *Server) reply(w http.ResponseWriter, r *http.Request, users func(context.Context) (Users, error), f func(context.Context, Users, request) (answer, error)) {
	var req request
	var a answer
	err := json.NewDecoder(io.LimitReader(r.Body, maxRequest)).Decode(&req)
	if err == nil {
		var u Users
		if u, err = users(r.Context()); err == nil {
			a, err = f(r.Context(), u, req)
		}
	}
	if err != nil {
		a.Error = s.toSay(r.URL.Path, err)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a) // the asker may be gone
}

// toSay keeps the words of an inside error: who asks owns the server.
func (s *Server) toSay(what string, err error) *wire.Error {
	var we *wire.Error
	if errors.As(err, &we) {
		return we
	}
	s.log.Warn("the administration of a user failed", "what", what, "error", err)
	return wire.E(wire.Internal, err.Error())
}

func (s *Server) export(w http.ResponseWriter, r *http.Request, users func(context.Context) (Users, error)) {
	var req request
	err := json.NewDecoder(io.LimitReader(r.Body, maxRequest)).Decode(&req)
	u, uerr := users(r.Context())
	if err = errors.Join(err, uerr); err == nil {
		w.Header().Set("Trailer", complete)
		w.Header().Set("Content-Type", "application/zip")
		out := &lateHeader{w: w}
		if err = u.Export(r.Context(), req.Name, out); err == nil {
			w.Header().Set(complete, "yes")
			return
		}
		if out.begun {
			s.toSay("export", err) // only to log it
			return                 // without the trailer it is not complete
		}
		w.Header().Del("Trailer")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusConflict)
	_ = json.NewEncoder(w).Encode(answer{Error: s.toSay("export", err)}) // the asker may be gone
}

// lateHeader tells whether anything was written.
type lateHeader struct {
	w     io.Writer
	begun bool
}

func (l *lateHeader) Write(b []byte) (int, error) {
	l.begun = true
	return l.w.Write(b)
}

// Remote asks a running `parley serve` over its socket.
type Remote struct{ hc *http.Client }

// Dial makes no contact yet.
func Dial(data string) *Remote {
	path := Socket(data)
	return &Remote{&http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}}
}

func (r *Remote) post(ctx context.Context, what string, req request) (*http.Response, error) {
	b, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode a request: %w", err)
	}
	hr, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://parley/"+what, bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	resp, err := r.hc.Do(hr)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // its text names an address that nobody knows
		}
		return nil, fmt.Errorf("the server that runs in this data folder does not answer: %w", err)
	}
	return resp, nil
}

func (r *Remote) do(ctx context.Context, what string, req request) (answer, error) {
	resp, err := r.post(ctx, what, req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	return read(resp.Body)
}

func read(body io.Reader) (a answer, err error) {
	if err := json.NewDecoder(body).Decode(&a); err != nil {
		return a, fmt.Errorf("read the server's answer: %w", err)
	}
	if a.Error != nil {
		return a, a.Error
	}
	return a, nil
}

// Add registers a user.
func (r *Remote) Add(ctx context.Context, name, password string) (string, error) {
	a, err := r.do(ctx, "add", request{Name: name, Password: password})
	return a.Username, err
}

// SetPassword changes a password.
func (r *Remote) SetPassword(ctx context.Context, name, password string) (int, error) {
	a, err := r.do(ctx, "passwd", request{Name: name, Password: password})
	return a.Count, err
}

// SetDisabled locks a user out or in.
func (r *Remote) SetDisabled(ctx context.Context, name string, disabled bool) error {
	_, err := r.do(ctx, "disable", request{Name: name, Disabled: disabled})
	return err
}

// List is a page of all users.
func (r *Remote) List(ctx context.Context, after string) (Page, error) {
	a, err := r.do(ctx, "list", request{After: after})
	if err != nil || a.Page == nil {
		return Page{}, err
	}
	return *a.Page, nil
}

// Erase forgets a user.
func (r *Remote) Erase(ctx context.Context, name string) (int, error) {
	a, err := r.do(ctx, "erase", request{Name: name})
	return a.Count, err
}

// Export copies the zip that the server makes.
func (r *Remote) Export(ctx context.Context, name string, to io.Writer) error {
	resp, err := r.post(ctx, "export", request{Name: name})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		_, err := read(resp.Body)
		return err
	}
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("read the export: %w", err)
	}
	if resp.Trailer.Get(complete) == "" {
		return errors.New("the export broke off; the server's log says why")
	}
	return nil
}
