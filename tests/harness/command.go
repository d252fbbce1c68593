package harness

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
)

// Parley runs the program parley beside the deployment, with the stores that its services have, and gives the exit status and what it printed.
func (v *View) Parley(stdin string, args ...string) (status int, out string) {
	v.t.Helper()
	cmd := exec.Command(Program(v.t, "parley"), args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PARLEY_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "PARLEY_SQL_URL="+v.settings["sql-url"], "PARLEY_NATS_URL="+v.settings["nats-url"])
	if v.users != nil {
		cmd.Env = append(cmd.Env, "PARLEY_NATS_USER=admin", "PARLEY_NATS_PASSWORD="+v.users["admin"])
	}
	cmd.Stdin = strings.NewReader(stdin)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	var ee *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &ee) {
		v.t.Fatalf("run parley: %v", err)
	}
	if strings.Contains(b.String(), "WARNING: DATA RACE") {
		v.t.Errorf("parley has a data race:\n%s", &b)
	}
	return cmd.ProcessState.ExitCode(), b.String()
}
