// Package health is `parley health`: what curl would do in an image that has nothing but these programs.
package health

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"parley.example/pkg/config"
	"parley.example/pkg/lifecycle"
)

// Config of the command.
type Config struct {
	Admin   string        `cfg:"admin" default:"127.0.0.1:9090" help:"private address of the process, as that has it: its /readyz is asked where no URL is given"`
	Timeout time.Duration `cfg:"timeout" default:"3s" help:"how long the answer may take"`
}

// Validate returns all mistakes.
func (c *Config) Validate() error {
	if c.Timeout <= 0 {
		return errors.New("timeout: must be above 0")
	}
	return nil
}

const help = `parley health [URL] asks a process of Parley whether it can do its work, and prints what that says.

Without a URL it asks /readyz on the private address. /healthz there says only that the process runs.

Exit status: 0 it can, 1 it cannot or does not answer, 2 wrong command line.

Settings (flag, environment variable, default, meaning):
`

// most of an answer that is printed.
const most = 4 << 10

// Main is the command.
func Main(ctx context.Context, args []string, env func(string) (string, bool), out io.Writer) error {
	var cfg Config
	url := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		url, args = args[0], args[1:]
	}
	err := config.Load(&cfg, args, env)
	if errors.Is(err, flag.ErrHelp) || url == "help" {
		fmt.Fprint(out, help)
		return config.Reference(out, &cfg)
	}
	if err == nil && url == "" {
		url, err = readyz(cfg.Admin)
	}
	if err != nil {
		return usage(err)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return usage(err)
	}
	if req.URL.Host == "" || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return usage(fmt.Errorf("%q is no URL that begins with http:// or https://", url))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err // it names the URL
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	said := strings.TrimSpace(string(body))
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answers %s: %s", url, resp.Status, said)
	case err != nil:
		return fmt.Errorf("read the answer of %s: %w", url, err)
	}
	_, err = fmt.Fprintln(out, said)
	return err
}

// readyz is the URL of a process that listens on admin, which may be an address of all interfaces.
func readyz(admin string) (string, error) {
	host, port, err := net.SplitHostPort(admin)
	if err != nil {
		return "", fmt.Errorf("admin: %w", err)
	}
	if port == "0" {
		return "", errors.New("admin: a port that the system chooses is in the log of the process; give its URL")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port) + "/readyz", nil
}

func usage(err error) error { return &lifecycle.StatusError{Status: lifecycle.StatusUsage, Err: err} }
