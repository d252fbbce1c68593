package httpapi

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
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

// parseOrigin gives an origin the form in which browsers send it (RFC 6454, section 6.2).
func parseOrigin(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || strings.TrimSuffix(u.Path, "/") != "" ||
		u.RawQuery != "" || u.Fragment != "" || strings.Contains(u.Host, "*") {
		return "", fmt.Errorf("allowed-origins: %q is not scheme://host or scheme://host:port", s)
	}
	host := strings.ToLower(u.Host)
	switch u.Scheme { // browsers leave the default port out
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return u.Scheme + "://" + host, nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("trusted-proxies: %q is neither a network such as 10.0.0.0/8 nor an address", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}
