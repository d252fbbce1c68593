package httpapi

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Edge knows what stands between a client and this server: which proxies are believed and which web pages may come.
// HTTP and WebSocket share one.
type Edge struct {
	proxies []netip.Prefix
	origins map[string]bool
}

// NewEdge reads AllowedOrigins and TrustedProxies; its error has every mistake.
func NewEdge(cfg Config) (*Edge, error) {
	e := &Edge{origins: map[string]bool{}}
	var errs []error
	for _, s := range cfg.AllowedOrigins {
		o, err := parseOrigin(s)
		errs = append(errs, err)
		e.origins[o] = err == nil
	}
	for _, s := range cfg.TrustedProxies {
		p, err := parseNetwork(s)
		errs = append(errs, err)
		e.proxies = append(e.proxies, p)
	}
	return e, errors.Join(errs...)
}

// ClientAddress is whose request this is: the peer, or, when the peer is a trusted proxy, the right-most address of
// X-Forwarded-For that is none. What stands left of that was written by the client and may be a lie.
// The zero Addr means that the peer has no address (a Unix socket).
func (e *Edge) ClientAddress(r *http.Request) netip.Addr {
	client := peer(r)
	if !e.Trusted(client) {
		return client
	}
	lines := r.Header.Values("X-Forwarded-For")
	for i := len(lines) - 1; i >= 0; i-- {
		for line, rest := lines[i], ""; line != ""; line = rest {
			entry := line
			if cut := strings.LastIndexByte(line, ','); cut >= 0 {
				rest, entry = line[:cut], line[cut+1:]
			} else {
				rest = ""
			}
			a, ok := parseAddress(strings.TrimSpace(entry))
			if !ok {
				return client // the nearest that a trusted proxy vouched for
			}
			if client = a; !e.Trusted(a) {
				return a
			}
		}
	}
	return client
}

// OriginAllowed reports whether the page that makes the request may: no Origin (not a browser), the server's
// own origin, or one of the list. It is the check of WebSocket openings and of CORS.
func (e *Edge) OriginAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || e.origins[origin] {
		return true
	}
	u, err := url.Parse(origin)
	// A proxy may add the port that browsers leave out (nginx: $host:$server_port).
	if err != nil || u.Host == "" || originHost(u.Scheme, u.Host) != originHost(u.Scheme, r.Host) {
		return false
	}
	// Behind TLS, a page that came without it may have been written by anybody on the way.
	return u.Scheme == "https" || u.Scheme == "http" && !e.secure(r)
}

// AddressText is ClientAddress as services get it, "" when it is not known.
func (e *Edge) AddressText(r *http.Request) string {
	if a := e.ClientAddress(r); a.IsValid() {
		return a.String()
	}
	return ""
}

// SiteAllowed is OriginAllowed for requests that act without a token in a header of their own, so that the page of another site could have made
// them. A browser that names no origin still says whether it was another site's.
func (e *Edge) SiteAllowed(r *http.Request) bool {
	if r.Header.Get("Origin") != "" {
		return e.OriginAllowed(r)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		return false
	}
	return true
}

func (e *Edge) secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	return e.Trusted(peer(r)) && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// Trusted reports whether a is a proxy whose word about its clients counts.
func (e *Edge) Trusted(a netip.Addr) bool {
	for _, p := range e.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// local: something on this machine asks, and not for somebody else as a proxy would.
func local(r *http.Request) bool {
	return peer(r).IsLoopback() && len(r.Header.Values("X-Forwarded-For")) == 0
}

func peer(r *http.Request) netip.Addr {
	a, _ := parseAddress(r.RemoteAddr)
	return a
}

// parseAddress reads 1.2.3.4, 1.2.3.4:5, ::1 and [::1]:5.
func parseAddress(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		a = ap.Addr()
	}
	return a.Unmap().WithZone(""), true
}
