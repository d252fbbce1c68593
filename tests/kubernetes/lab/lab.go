// Package lab drives a cluster of the development machine: real Kubernetes nodes as processes (k8s-lab), and what tests need of it.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Lab is one cluster; its state folder is K8S_LAB_STATE's.
type Lab struct {
	program string
	log     func(format string, args ...any)
}

// Find looks for the lab: K8S_LAB names its folder, else it lies beside the checkout.
func Find(root string, log func(string, ...any)) (*Lab, error) {
	dir := os.Getenv("K8S_LAB")
	if dir == "" {
		dir = filepath.Join(root, "..", "shared", "k8s-lab")
	}
	program := filepath.Join(dir, "lab")
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("no cluster to test on: %w (K8S_LAB names the folder of k8s-lab)", err)
	}
	return &Lab{program, log}, nil
}

// Run runs a command of the lab and gives what it prints. The error has what it said.
func (l *Lab) Run(ctx context.Context, args ...string) (string, error) {
	return l.Feed(ctx, nil, args...)
}

// Feed is Run with something on the command's standard input.
func (l *Lab) Feed(ctx context.Context, in []byte, args ...string) (string, error) {
	cmd := l.Command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("lab %s: %w\n%s%s", strings.Join(args, " "), err, tail(out.String()), tail(errs.String()))
	}
	return out.String(), nil
}

// Command prepares a command of the lab.
func (l *Lab) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, l.program, args...)
}

func tail(s string) string {
	const most = 4000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// Kubectl is `lab kubectl`.
func (l *Lab) Kubectl(ctx context.Context, args ...string) (string, error) {
	return l.Run(ctx, append([]string{"kubectl"}, args...)...)
}

// Get reads objects as JSON into out.
func (l *Lab) Get(ctx context.Context, out any, args ...string) error {
	s, err := l.Kubectl(ctx, append(append([]string{"get"}, args...), "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(s), out)
}

// Proxy asks a pod over HTTP by way of the API server.
func (l *Lab) Proxy(ctx context.Context, namespace, pod, port, path string) (string, error) {
	return l.Kubectl(ctx, "get", "--raw", "/api/v1/namespaces/"+namespace+"/pods/"+pod+":"+port+"/proxy"+path)
}

// Published is a Service's port on this machine.
var published = regexp.MustCompile(`127\.0\.0\.1:(\d+)`)

// Publish makes a Service reachable and gives its address here.
func (l *Lab) Publish(ctx context.Context, service string) (string, error) {
	out, err := l.Run(ctx, "publish", service, "0")
	if err != nil {
		return "", err
	}
	addr := published.FindString(out)
	if addr == "" {
		return "", fmt.Errorf("publish %s: no address in %q", service, out)
	}
	return addr, nil
}

// Running reports that nodes run.
func (l *Lab) Running(ctx context.Context) bool {
	out, err := l.Run(ctx, "status")
	return err == nil && !strings.Contains(out, "not running")
}

// Up starts three nodes.
func (l *Lab) Up(ctx context.Context) error {
	l.log("three nodes start")
	_, err := l.Run(ctx, "up", "3")
	return err
}

// Bin is a program that the lab has built.
func (l *Lab) Bin(ctx context.Context, name string) (string, error) {
	dir, err := l.Run(ctx, "path")
	path := filepath.Join(strings.TrimSpace(dir), name)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("the lab's %s: %w (lab build)", name, err)
	}
	return path, nil
}

// Wait polls until ok, or says at the end of its patience what was last wrong.
func Wait(ctx context.Context, what string, within time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %s: %w", within, what, err)
		case <-time.After(200 * time.Millisecond): // polling interval
		}
	}
}

// ErrNotYet is for a state that is only to be waited for.
var ErrNotYet = errors.New("not yet")
