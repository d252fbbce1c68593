package target

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// polling is a client on HTTP long-polling. It holds two connections, as clients do that use a pool of their own: one waits in a poll
// while the other posts.
type polling struct {
	path, cookie string
	get          *requests // of the reader

	mu    sync.Mutex
	post  *requests
	rest  []byte // of the last payload; of the reader
	first []byte // what the handshake answered; of the reader
}

// separator stands between the packets of a payload.
const separator = '\x1e'

func dialPolling(ctx context.Context, addr string, c Client) (_ Conn, err error) {
	p := &polling{path: "/socket.io/?EIO=4&transport=polling"}
	if p.get, err = dialRequests(ctx, addr, c.Local); err != nil {
		return nil, err
	}
	if p.post, err = dialRequests(ctx, addr, c.Local); err != nil {
		p.get.nc.Close()
		return nil, err
	}
	body, cookie, err := p.get.do(http.MethodGet, p.path, "", nil)
	var open struct{ SID string }
	if err == nil && (len(body) < 2 || json.Unmarshal(body[1:], &open) != nil) {
		err = fmt.Errorf("the handshake was answered with %q", body)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	p.path += "&sid=" + open.SID
	p.cookie, p.first = cookie, body
	return p, nil
}

func (p *polling) Read([]byte) ([]byte, error) {
	for {
		if b := p.first; b != nil {
			p.first = nil
			return b, nil
		}
		if p.rest == nil {
			body, _, err := p.get.do(http.MethodGet, p.path, p.cookie, nil)
			if err != nil {
				return nil, err
			}
			p.rest = body
		}
		b, rest, more := bytes.Cut(p.rest, []byte{separator})
		if p.rest = rest; !more {
			p.rest = nil
		}
		if len(b) != 1 || b[0] != '2' {
			return b, nil
		}
		if err := p.Write([]byte("3")); err != nil {
			return nil, err
		}
	}
}

func (p *polling) Write(frame []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _, err := p.post.do(http.MethodPost, p.path, p.cookie, frame)
	return err
}

func (p *polling) Close() {
	_ = p.get.nc.Close() // nothing is written on it any more
	_ = p.post.nc.Close()
}

// requests is one connection for HTTP requests one after the other.
type requests struct {
	addr string
	nc   net.Conn
	br   *bufio.Reader
}

func dialRequests(ctx context.Context, addr string, local net.IP) (*requests, error) {
	d := net.Dialer{KeepAlive: -1, Timeout: startTimeout}
	if local != nil {
		d.LocalAddr = &net.TCPAddr{IP: local}
	}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return &requests{addr, nc, bufio.NewReaderSize(nc, 1<<10)}, nil
}

// requestPatience is longer than a poll waits: a heartbeat ends it.
const requestPatience = time.Minute

func (r *requests) do(method, path, cookie string, body []byte) (answer []byte, setCookie string, err error) {
	req := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, r.addr)
	if cookie != "" {
		req = fmt.Appendf(req, "Cookie: %s\r\n", cookie)
	}
	if body != nil {
		req = fmt.Appendf(req, "Content-Type: text/plain; charset=UTF-8\r\nContent-Length: %d\r\n", len(body))
	}
	_ = r.nc.SetDeadline(time.Now().Add(requestPatience)) // a TCP connection takes deadlines
	if _, err := r.nc.Write(append(append(req, "\r\n"...), body...)); err != nil {
		return nil, "", fmt.Errorf("%s: %w", method, err)
	}
	resp, err := http.ReadResponse(r.br, nil)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", method, err)
	}
	answer, err = io.ReadAll(resp.Body)
	resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status + " " + string(answer))
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", method, err)
	}
	for _, c := range resp.Cookies() {
		setCookie = c.Name + "=" + c.Value
	}
	return answer, setCookie, nil
}
