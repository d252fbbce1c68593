package scenario

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"parley.example/tests/harness"
)

// metrics shows that every metric that an alert or the dashboard looks at is one that some program has.
func metrics(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	l, a := lisa.Joined(e.at(0)), avi.Joined(e.at(0))
	l.MustSend(harness.Room(lisa, avi), "counted")
	a.Message("counted")
	l.Drop()
	var pages strings.Builder
	for _, admin := range []string{e.Gateways[0].Admin, "http://" + e.Auth.LogValue(t, "admin"), "http://" + e.Presence[0].LogValue(t, "admin"), "http://" + e.History.LogValue(t, "admin")} {
		pages.Write(e.Do("GET", admin+"/metrics", "", nil).Body)
	}
	have := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(pages.String(), -1) {
		have[m[1]] = true
	}
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	for _, file := range []string{"alerts.yaml", "dashboard.json"} {
		b, err := os.ReadFile(filepath.Join("../../deploy/helm/parley/files", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\b(parley|process|go)_[a-z0-9_]+`).FindAllString(string(b), -1) {
			if !have[name] && !have[suffix.ReplaceAllString(name, "")] {
				t.Errorf("%s looks at %s, which no program has", file, name)
			}
		}
	}
}
