package sdk

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

// drivers are those of this repository, by the language that a scene's "only" names.
func drivers(t *testing.T) map[string][]string {
	t.Helper()
	if own := os.Getenv("PARLEY_SDK_DRIVER"); own != "" {
		return map[string][]string{"own": strings.Fields(own)}
	}
	driver := filepath.Join(t.TempDir(), "driver")
	if out, err := exec.Command("go", "build", "-o", driver, "./driver").CombinedOutput(); err != nil {
		t.Fatalf("build the Go driver: %v\n%s", err, out)
	}
	return map[string][]string{"go": {driver}, "js": {"node", "driver.js"}}
}

func scenes(t *testing.T) []*Scene {
	t.Helper()
	files, err := filepath.Glob("scenes/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenes: %v", err)
	}
	var out []*Scene
	for _, f := range files {
		s, err := ReadScene(f, strings.TrimSuffix(filepath.Base(f), ".txt"))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// TestScenes judges both SDKs, or the one of PARLEY_SDK_DRIVER, by each scene.
func TestScenes(t *testing.T) {
	for language, command := range drivers(t) {
		for _, s := range scenes(t) {
			if s.Only != "" && s.Only != language {
				continue
			}
			t.Run(language+"/"+s.Name, func(t *testing.T) {
				t.Parallel()
				if err := Play(t.Context(), s, command...); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestScenesFindFaults shows that the judge can fail: each fault of faults.js is found by the scene of its name, at a step that it is about.
func TestScenesFindFaults(t *testing.T) {
	faults := map[string][2]string{ // by the fault: the scene, and what stands in the step that fails
		"joins without the token":                  {"resume", "hear join"},
		"keeps the oldest token":                   {"resume", "hear join"},
		"hands on twins":                           {"twins", "is "},
		"hides what is late":                       {"late", "is message"},
		"drops what is late":                       {"late", "is message"},
		"holds back until it is in order":          {"late", "is message"},
		"tells of one's own":                       {"own", "is "},
		"sends again as if it were the first time": {"retry", "hear client_sends_message"},
		"sends again under another id":             {"retry", "hear client_sends_message"},
		"forgets whom it watches":                  {"watch", "hear watch_presence"},
		"leaves without a good-bye":                {"good-bye", "hear client_disconnection"},
		"takes a send for unknown":                 {"refusals", "is unsent"},
	}
	b, err := os.ReadFile("faults.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^  "([^"]+)": \(\) =>`).FindAllStringSubmatch(string(b), -1) {
		if _, ok := faults[m[1]]; !ok {
			t.Errorf("no scene has to find %q", m[1])
		}
	}
	byName := map[string]*Scene{}
	for _, s := range scenes(t) {
		byName[s.Name] = s
	}
	for fault, found := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			err := Play(t.Context(), byName[found[0]], "node", "driver.js", "--fault", fault)
			if err == nil || !strings.Contains(strings.SplitN(err.Error(), ":", 2)[0], found[1]) {
				t.Errorf("%s finds %v", found[0], err)
			}
		})
	}
}

// TestRulesAreAllCited: each rule of docs/sdk.md is shown for each SDK, by a scene or by a test of its own that names it.
func TestRulesAreAllCited(t *testing.T) {
	b, err := os.ReadFile("../../docs/sdk.md")
	if err != nil {
		t.Fatal(err)
	}
	var rules []int
	for _, m := range regexp.MustCompile(`(?m)^(\d+)\. \*\*`).FindAllStringSubmatch(string(b), -1) {
		n, _ := strconv.Atoi(m[1]) // digits
		if rules = append(rules, n); n != len(rules) {
			t.Fatalf("rule %d is the %dth", n, len(rules))
		}
	}
	if len(rules) == 0 {
		t.Fatal("docs/sdk.md has no rules")
	}
	cited := map[string][]int{"go": nil, "js": nil}
	for _, s := range scenes(t) {
		for _, n := range s.Rules {
			if !slices.Contains(rules, n) {
				t.Errorf("%s cites rule %d, which does not exist", s.Name, n)
			}
		}
		for language := range cited {
			if s.Only == "" || s.Only == language {
				cited[language] = append(cited[language], s.Rules...)
			}
		}
	}
	for language, pattern := range map[string]string{"go": "../../client/*_test.go", "js": "../browser/*.test.js"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no tests: %v", language, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?i)\brules? (\d+(?:(?:, | and )\d+)*)`).FindAllStringSubmatch(string(b), -1) {
				for _, w := range regexp.MustCompile(`\d+`).FindAllString(m[1], -1) {
					n, _ := strconv.Atoi(w) // digits
					if !slices.Contains(rules, n) {
						t.Errorf("%s cites rule %d, which does not exist", f, n)
					}
					cited[language] = append(cited[language], n)
				}
			}
		}
	}
	for _, n := range rules {
		for language, have := range cited {
			if !slices.Contains(have, n) {
				t.Errorf("no test of %s cites rule %d", language, n)
			}
		}
	}
}

// TestClosesAreAllShown: a way in which the server ends a connection has a scene that says what a client does then (rule 16).
func TestClosesAreAllShown(t *testing.T) {
	all := scenes(t)
	for _, cl := range wire.Closes {
		if !slices.ContainsFunc(all, func(s *Scene) bool { return s.waitsFor("close", strconv.Itoa(cl.Code)) }) {
			t.Errorf("no scene shows %d, %s", cl.Code, cl.Reason)
		}
	}
}
