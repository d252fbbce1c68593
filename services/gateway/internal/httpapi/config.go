package httpapi

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// Config of the public HTTP side.
type Config struct {
	AllowedOrigins []string `cfg:"allowed-origins" help:"web origins (scheme://host[:port], exact) whose pages may use this server, beside its own; comma-separated"`
	TrustedProxies []string `cfg:"trusted-proxies" help:"networks (CIDR) of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; without it all clients behind a proxy count as one address"`
	Rate           float64  `cfg:"http-rate" default:"50" help:"HTTP requests (WebSocket openings included) a second from one client address"`
	Burst          int      `cfg:"http-burst" default:"100" help:"HTTP requests that one client address may make at once"`
}

// Validate returns every mistake.
func (c Config) Validate() error {
	_, err := NewEdge(c)
	errs := []error{err}
	if !(c.Rate > 0 && c.Rate <= 1e6) { // also refuses NaN
		errs = append(errs, fmt.Errorf("http-rate: %v is not between 0 and 1,000,000", c.Rate))
	}
	if c.Burst < 1 {
		errs = append(errs, fmt.Errorf("http-burst: %d is less than 1", c.Burst))
	}
	return errors.Join(errs...)
}

// parseOrigin gives an origin the form in which browsers send it (RFC 6454, section 6.2), and refuses what no browser would send.
func parseOrigin(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || u.User != nil || strings.TrimSuffix(u.Path, "/") != "" ||
		u.RawQuery != "" || u.Fragment != "" || strings.Contains(u.Host, "*") {
		return "", fmt.Errorf("allowed-origins: %q is not scheme://host or scheme://host:port", s)
	}
	if strings.ContainsFunc(u.Host, func(r rune) bool { return r > unicode.MaxASCII }) {
		return "", fmt.Errorf("allowed-origins: %q can match no page: browsers send such a host in its ASCII form, xn--…", s)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", fmt.Errorf("allowed-origins: %q has no port from 1 to 65535", s)
		}
	}
	return u.Scheme + "://" + originHost(u.Scheme, u.Host), nil
}

// originHost is a host and port as an origin of a scheme has them: in lower case, addresses in their shortest form, without the scheme's own port.
func originHost(scheme, hostport string) string {
	u := url.URL{Host: hostport}
	host, port := strings.ToLower(u.Hostname()), strings.TrimLeft(u.Port(), "0")
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = "[" + a.String() + "]"
	}
	if port == "" || scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return host
	}
	return host + ":" + port
}

// parseNetwork reads a network or an address, in the form that parseAddress gives those of requests.
func parseNetwork(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, ok := parseAddress(s)
		if !ok || strings.ContainsAny(s, "[]%") || strings.Count(s, ":") == 1 {
			return netip.Prefix{}, fmt.Errorf("trusted-proxies: %q is neither a network such as 10.0.0.0/8 nor an address", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
