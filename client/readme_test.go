package client_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley.example/client"
)

// The Go program of the README is compiled and run as it stands, but for the address.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "\n```go\n")
	program, _, closed := strings.Cut(rest, "\n```\n")
	const address = "http://127.0.0.1:8080"
	if !found || !closed || strings.Count(program, address) != 1 {
		t.Fatalf("README.md has no Go program that talks to %s", address)
	}
	main := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(main, []byte(strings.Replace(program, address, demoURL(), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	binary := filepath.Join(t.TempDir(), "readme")
	if out, err := exec.Command("go", "build", "-o", binary, main).CombinedOutput(); err != nil {
		t.Fatalf("it does not compile: %v\n%s", err, out)
	}
	// It says hello to Avi and ends with his answer.
	avi, err := client.Dial(ctx, client.Options{Session: demoLogin(ctx, "Avi", "MoreMoreMore")})
	if err != nil {
		t.Fatal(err)
	}
	defer avi.Close()
	go func() {
		for ev := range avi.Events() {
			if m, ok := ev.(client.Message); ok && m.Content == "hello from Go" {
				_, _ = avi.Send(ctx, m.Room, "hello yourself") // the program shows whether it came
			}
		}
	}()
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = append(os.Environ(), "PARLEY_PASSWORD=TestMe")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Avi: hello yourself") {
		t.Errorf("it ended with %v and printed\n%s", err, out)
	}
}
