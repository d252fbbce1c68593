// Package sdk judges SDKs by docs/sdk.md: a server of this process plays transcripts (scenes/*.txt) to a driver, a small program that uses one SDK
// and speaks JSON lines on stdin and stdout, and compares what the SDK sends and tells with what stands there.
package sdk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Scene is one transcript.
type Scene struct {
	Name  string
	Rules []int
	Only  string // the driver that it is for; "": all
	mute  bool   // the server answers no question whether it is there
	steps []step
}

// step is one line of a scene.
type step struct {
	line   int
	text   string
	verb   string         // do, is, open, hear, say, raw, ping, cut, close, left, post
	name   string         // of a command or event, a token, a path, a close code
	data   map[string]any // nil: none is given
	re     bool           // say: as the answer to the frame heard last
	times  int            // say: how often
	status int            // post: of the answer
	answer map[string]any // post
}

var (
	plain = regexp.MustCompile(`^(do|is|open|hear|say|ping|cut|close|left)(?: ([^\s{]+))?(?: (\{.*\}))?( re)?(?: x(\d+))?$`)
	raw   = regexp.MustCompile(`^(raw) (.+)$`)
	post  = regexp.MustCompile(`^post (\S+) (\{.*\}) -> (\d+) (\{.*\})$`)
)

// ReadScene reads a transcript. Lines that begin with # are comments, "rules N…" names the rules that it shows, "only NAME" the one driver that it is for, and
// after "mute" the server does not answer connection_alive by itself.
func ReadScene(path, name string) (*Scene, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &Scene{Name: name}
	for i, text := range strings.Split(string(b), "\n") {
		text = strings.TrimSpace(text)
		words := strings.Fields(text)
		switch {
		case text == "" || text[0] == '#':
			continue
		case text == "mute":
			s.mute = true
			continue
		case words[0] == "only":
			s.Only = words[1]
			continue
		case words[0] == "rules":
			for _, w := range words[1:] {
				n, err := strconv.Atoi(w)
				if err != nil {
					return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
				}
				s.Rules = append(s.Rules, n)
			}
			continue
		}
		st, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		st.line, st.text = i+1, text
		s.steps = append(s.steps, st)
	}
	if len(s.Rules) == 0 || len(s.steps) == 0 {
		return nil, fmt.Errorf("%s shows no rule", path)
	}
	return s, nil
}

func parse(text string) (st step, err error) {
	if m := post.FindStringSubmatch(text); m != nil {
		st = step{verb: "post", name: m[1]}
		st.status, _ = strconv.Atoi(m[3]) // digits
		if st.data, err = object(m[2]); err == nil {
			st.answer, err = object(m[4])
		}
		return st, err
	}
	if m := raw.FindStringSubmatch(text); m != nil {
		return step{verb: m[1], name: m[2]}, nil
	}
	m := plain.FindStringSubmatch(text)
	if m == nil {
		return st, fmt.Errorf("no step: %s", text)
	}
	st = step{verb: m[1], name: m[2], re: m[4] != "", times: 1}
	if m[5] != "" {
		st.times, _ = strconv.Atoi(m[5]) // digits
	}
	if m[3] != "" {
		st.data, err = object(m[3])
	}
	return st, err
}

func object(text string) (out map[string]any, err error) {
	err = json.Unmarshal([]byte(text), &out)
	return out, err
}

// waitsFor reports whether the scene has a step with this verb and name.
func (s *Scene) waitsFor(verb, name string) bool {
	return slices.ContainsFunc(s.steps, func(st step) bool { return st.verb == verb && st.name == name })
}

// vars are the values of $names. A name gets its value where it is compared for the first time.
type vars map[string]any

// match compares what is wanted with what came. Both are values of encoding/json.
func (v vars) match(want, got any) error {
	switch w := want.(type) {
	case string:
		if !strings.HasPrefix(w, "$") {
			break
		}
		have, ok := v[w]
		if !ok {
			if got == nil || got == "" {
				return fmt.Errorf("%s has no value", w)
			}
			v[w] = got
			return nil
		}
		want = have
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%v is no object", got)
		}
		for k, x := range w {
			y, ok := g[k]
			if !ok {
				return fmt.Errorf("%s is missing", k)
			}
			if err := v.match(x, y); err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
		}
		for k := range g {
			if _, ok := w[k]; !ok {
				return fmt.Errorf("%s is not expected", k)
			}
		}
		return nil
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Errorf("%v is not %v", got, want)
		}
		for i := range w {
			if err := v.match(w[i], g[i]); err != nil {
				return err
			}
		}
		return nil
	}
	a, _ := json.Marshal(want) // it came from JSON
	b, _ := json.Marshal(got)
	if !bytes.Equal(a, b) {
		return fmt.Errorf("%s is not %s", b, a)
	}
	return nil
}

// fill puts values in the place of $names.
func (v vars) fill(x any) any {
	switch t := x.(type) {
	case string:
		if have, ok := v[t]; ok {
			return have
		}
	case map[string]any:
		out := make(map[string]any, len(t))
		for k, y := range t {
			out[k] = v.fill(y)
		}
		return out
	case []any:
		out := make([]any, len(t))
		for i, y := range t {
			out[i] = v.fill(y)
		}
		return out
	}
	return x
}
