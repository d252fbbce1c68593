package allinone

import (
	"fmt"
	"io"
	"net"
	"strings"

	"parley.example/services/auth"
)

// greet prints what a newcomer wants to know to notes, and then to out the line that programs wait for.
func (p *parts) greet(cfg *Config, out, notes io.Writer) error {
	url := "http://" + reachable(p.gateway.Addr())
	var b strings.Builder
	fmt.Fprintf(&b, "chat       %s  (in a browser)\n", url)
	fmt.Fprintf(&b, "HTTP       %s/v1  (documents: %s/openapi.yaml, %s/asyncapi.yaml)\n", url, url, url)
	fmt.Fprintf(&b, "WebSocket  ws%s/v1/ws\n", strings.TrimPrefix(url, "http"))
	if a := p.admin.Addr(); a != "" {
		fmt.Fprintf(&b, "private    http://%s/metrics, /readyz, /debug/pprof\n", a)
	}
	fmt.Fprintf(&b, "data       %s\n", cfg.Data)
	if cfg.Demo {
		b.WriteString("\nDemo users, whose passwords everybody knows:\n")
		users := auth.DemoUsers()
		for _, u := range users {
			if u.Password != "" {
				fmt.Fprintf(&b, "  %-8s %s\n", u.Username, u.Password)
			}
		}
		me, peer := users[0], users[1]
		fmt.Fprintf(&b, "\nChat from another terminal:\n  PARLEY_PASSWORD='%s' bin/parley chat --url %s --user %s --with %s\n", me.Password, url, me.Username, peer.Username)
	}
	if !cfg.Demo {
		fmt.Fprintf(&b, "\nMake an account in the browser, or with: parley user add NAME --data %s   (serve --demo has users to try it with)\n", cfg.Data)
	}
	b.WriteByte('\n')
	// Whole texts in one write each: what is logged meanwhile must not come between.
	_, _ = io.WriteString(notes, b.String()) // nobody needs to read them
	if _, err := fmt.Fprintf(out, "ready %s\n", url); err != nil {
		return fmt.Errorf("say that it serves: %w", err)
	}
	return nil
}

// reachable is an address that a client can use: a wildcard is no place to go to.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}
