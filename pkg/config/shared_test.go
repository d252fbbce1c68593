package config_test

import (
	"bytes"
	"strings"
	"testing"

	"parley.example/pkg/config"
)

type part struct {
	Level string `cfg:"level" default:"info" help:"how much"`
	URL   string `cfg:"url" default:"x:1" help:"where"`
}

type whole struct {
	B struct{ Part part }
	C struct{ Part part }
	N int `cfg:"n" help:"number"`
}

func (whole) Fixed() []string { return []string{"url"} }

func TestLoadSharedAndFixedSettings(t *testing.T) {
	var c whole
	env := map[string]string{"PARLEY_URL": "ignored", "PARLEY_LEVEL": "warn", "PARLEY_N": "three"}
	lookup := func(k string) (string, bool) { v, ok := env[k]; return v, ok }
	err := config.Load(&c, nil, lookup)
	if err == nil || strings.Count(err.Error(), "PARLEY_N") != 1 {
		t.Errorf("got %v", err)
	}
	if c.B.Part.Level != "warn" || c.C.Part.Level != "warn" || c.B.Part.URL != "x:1" {
		t.Errorf("got %+v", c)
	}
	delete(env, "PARLEY_N")
	if err := config.Load(&c, []string{"--level", "debug"}, lookup); err != nil || c.B.Part.Level != "debug" || c.C.Part.Level != "debug" {
		t.Errorf("got %+v, %v", c, err)
	}
	if err := config.Load(&c, []string{"--url", "y"}, lookup); err == nil {
		t.Error("a fixed setting was taken from a flag")
	}
	var out bytes.Buffer
	if err := config.Reference(&out, &c); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.Count(s, "--level") != 1 || strings.Contains(s, "--url") || !strings.Contains(s, "--n ") {
		t.Errorf("reference:\n%s", s)
	}
}
