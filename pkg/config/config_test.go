package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"parley.example/pkg/config"
)

type nested struct {
	Wait time.Duration `cfg:"wait" default:"1500ms" help:"how long"`
}

type settings struct {
	HTTP   string `cfg:"http" default:":8080" help:"address to listen on"`
	Count  int    `cfg:"count" default:"3"`
	Big    int64  `cfg:"big-number"`
	Ratio  float64
	Rate   float64       `cfg:"rate" default:"0.5"`
	On     bool          `cfg:"on"`
	Off    bool          `cfg:"off" default:"true"`
	List   []string      `cfg:"list" default:"a, b ,,c"`
	Key    config.Secret `cfg:"key" help:"a secret"`
	Nested nested
	hidden nested // is left alone
	err    error
}

func (s *settings) Validate() error { return s.err }

func env(lines ...string) func(string) (string, bool) {
	m := map[string]string{}
	for _, l := range lines {
		k, v, _ := strings.Cut(l, "=")
		m[k] = v
	}
	return func(k string) (string, bool) { v, ok := m[k]; return v, ok }
}

func TestLoad(t *testing.T) {
	def := settings{HTTP: ":8080", Count: 3, Rate: .5, Off: true, List: []string{"a", "b", "c"}, Nested: nested{1500 * time.Millisecond}}
	change := func(f func(*settings)) settings { s := def; f(&s); return s }
	for _, c := range []struct {
		name string
		args []string
		env  []string
		want settings
	}{
		{"defaults", nil, nil, def},
		{"environment", nil, []string{"PARLEY_HTTP=:1", "PARLEY_BIG_NUMBER=-9000000000", "PARLEY_WAIT=2m", "PARLEY_LIST="},
			change(func(s *settings) { s.HTTP, s.Big, s.Nested.Wait, s.List = ":1", -9000000000, 2*time.Minute, nil })},
		{"empty in the environment is a value", nil, []string{"PARLEY_HTTP="}, change(func(s *settings) { s.HTTP = "" })},
		{"other variables", nil, []string{"HTTP=:1", "PARLEY_=x"}, def},
		{"flags win", []string{"--http", ":2", "--count=7"}, []string{"PARLEY_HTTP=:1", "PARLEY_COUNT=4"},
			change(func(s *settings) { s.HTTP, s.Count = ":2", 7 })},
		{"one dash", []string{"-http", ":2"}, nil, change(func(s *settings) { s.HTTP = ":2" })},
		{"bools", []string{"--on", "--off=false"}, nil, change(func(s *settings) { s.On, s.Off = true, false })},
		{"the last one wins", []string{"--count", "1", "--count", "2"}, nil, change(func(s *settings) { s.Count = 2 })},
		{"a value that looks like a flag", []string{"--count", "-5", "--http=--on"}, nil, change(func(s *settings) { s.Count, s.HTTP = -5, "--on" })},
		{"empty value", []string{"--http=", "--list", "x"}, nil, change(func(s *settings) { s.HTTP, s.List = "", []string{"x"} })},
		{"secret", []string{"--key", "k"}, nil, change(func(s *settings) { s.Key = "k" })},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got settings
			got.hidden.Wait = 7
			c.want.hidden.Wait = 7
			if err := config.Load(&got, c.args, env(c.env...)); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestLoadNamesEveryMistake(t *testing.T) {
	got := settings{err: errors.New("from Validate")}
	err := config.Load(&got,
		[]string{"stray", "--nothing", "value", "--count", "many", "--on=perhaps", "--wait", "5", "--nothing2=x", "--rate=x", "--http"},
		env("PARLEY_BIG_NUMBER=1.5", "PARLEY_OFF=2"))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`unexpected argument "stray"`, "unknown flag --nothing", "--count", "--on", "--wait", "unknown flag --nothing2", "--rate", "--http needs a value",
		"PARLEY_BIG_NUMBER", "PARLEY_OFF", "from Validate",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), `"value"`) {
		t.Errorf("the value of an unknown flag counts as a mistake of its own:\n%v", err)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"--nothing", "--help"}} {
		got := settings{err: errors.New("from Validate")}
		if err := config.Load(&got, args, env()); !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestReference(t *testing.T) {
	var b bytes.Buffer
	if err := config.Reference(&b, &settings{}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 9 {
		t.Errorf("%d lines:\n%s", len(lines), b.String())
	}
	for _, want := range [][]string{{"--http", "PARLEY_HTTP", ":8080", "address to listen on"}, {"--big-number", "PARLEY_BIG_NUMBER", "-"}, {"--wait", "PARLEY_WAIT", "1500ms"}} {
		found := false
		for _, l := range lines {
			if f := strings.Fields(l); f[0] == want[0] {
				found = strings.Join(f, " ") == strings.Join(want, " ")+map[bool]string{true: " how long"}[want[0] == "--wait"]
			}
		}
		if !found {
			t.Errorf("%v is missing in:\n%s", want, b.String())
		}
	}
}

func TestSecret(t *testing.T) {
	const value = "hunter2"
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got settings
	if err := config.Load(&got, nil, env("PARLEY_KEY=file:"+path)); err != nil || got.Key.Reveal() != value {
		t.Fatalf("%q, %v", got.Key.Reveal(), err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "key", got.Key, "all", got)
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "key", got.Key, "all", got)
	j, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{logged.String(), string(j), fmt.Sprint(got), fmt.Sprintf("%v %+v %#v %s %q %x", got, got, got, got.Key, got.Key, got.Key)} {
		if strings.Contains(s, value) || strings.Contains(s, fmt.Sprintf("%x", value)) {
			t.Errorf("shown in %s", s)
		}
	}
	if err := config.Load(&got, []string{"--key=file:" + path + ".none"}, env()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestLoadMistakesOfTheProgram(t *testing.T) {
	var badDefault struct {
		N int `cfg:"n" default:"x"`
	}
	if err := config.Load(&badDefault, nil, env()); err == nil {
		t.Error("a default of the wrong type was accepted")
	}
	var badType struct {
		M map[string]string `cfg:"m"`
	}
	if err := config.Load(&badType, []string{"--m=x"}, env()); err == nil {
		t.Error("a setting of an unsupported type was accepted")
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("--http", ":1", "--count=2")
	f.Add("--on", "--", "-")
	f.Add("--list=", "=", "--=x")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if strings.Contains(a+b+c, "file:") {
			return // it would read files
		}
		var s settings
		_ = config.Load(&s, []string{a, b, c}, env()) // must return
	})
}
