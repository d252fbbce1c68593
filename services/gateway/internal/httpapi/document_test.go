package httpapi

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// document is a YAML document whose parts can be looked up and used as JSON schemas.
type document struct {
	root     map[string]any
	compiler *jsonschema.Compiler
}

const documentURL = "mem:///document"

func load(t *testing.T, text []byte) *document {
	t.Helper()
	j, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource(documentURL, v); err != nil {
		t.Fatal(err)
	}
	d := &document{root: v.(map[string]any), compiler: c}
	d.walk("", d.root, func(at string, v any) {
		if m, ok := v.(map[string]any); ok {
			if ref, ok := m["$ref"].(string); ok && d.find(ref) == nil {
				t.Errorf("%s: %s leads nowhere", at, ref)
			}
		}
	})
	return d
}

// find is what a reference such as #/components/schemas/Room stands for; nil when there is nothing.
func (d *document) find(ref string) any {
	path, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return nil
	}
	var v any = d.root
	for _, p := range strings.Split(path, "/") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(p)]
	}
	return v
}

// object is the map at ref with its own reference followed.
func (d *document) object(t *testing.T, ref string) map[string]any {
	t.Helper()
	m, ok := d.find(ref).(map[string]any)
	if !ok {
		t.Fatalf("%s is no object", ref)
	}
	if next, ok := m["$ref"].(string); ok && len(m) == 1 {
		return d.object(t, next)
	}
	return m
}

// follow gives the reference to where ref's own reference ends.
func (d *document) follow(ref string) string {
	for {
		m, _ := d.find(ref).(map[string]any)
		next, ok := m["$ref"].(string)
		if !ok || len(m) != 1 {
			return ref
		}
		ref = next
	}
}

func (d *document) walk(at string, v any, f func(at string, v any)) {
	f(at, v)
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			d.walk(at+"/"+k, e, f)
		}
	case []any:
		for i, e := range v {
			d.walk(fmt.Sprint(at, "/", i), e, f)
		}
	}
}

// check validates JSON against the schema at ref.
func (d *document) check(t *testing.T, ref string, body []byte) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		t.Errorf("%s: %v in %s", ref, err, body)
		return
	}
	d.checkValue(t, ref, v)
}

func (d *document) checkValue(t *testing.T, ref string, v any) {
	t.Helper()
	s, err := d.compiler.Compile(documentURL + ref)
	if err != nil {
		t.Fatalf("schema %s: %v", ref, err)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%v\nis not as the document says: %v", v, err)
	}
}

// refuses is check the other way round: the schema must not be one that takes everything.
func (d *document) refuses(t *testing.T, ref, body string) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := d.compiler.Compile(documentURL + ref); err != nil {
		t.Fatal(err)
	} else if s.Validate(v) == nil {
		t.Errorf("%s takes %s", ref, body)
	}
}

// matches fails unless schema ref has exactly the JSON fields of the struct (less omit), and requires exactly those that are always there.
func (d *document) matches(t *testing.T, ref string, typ reflect.Type, omit ...string) {
	t.Helper()
	var fields []string
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if name != "" && name != "-" && !slices.Contains(omit, name) {
			fields = append(fields, name)
		}
	}
	props, _ := d.object(t, ref)["properties"].(map[string]any)
	sameSet(t, ref+" and "+typ.String(), keys(props), fields)
}

func keys(m map[string]any) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

func texts(t *testing.T, v any) (out []string) {
	t.Helper()
	list, ok := v.([]any)
	if !ok {
		t.Fatalf("%v is no list", v)
	}
	for _, e := range list {
		out = append(out, e.(string))
	}
	return out
}

// sameSet fails with what one side lacks.
func sameSet(t *testing.T, what string, document, code []string) {
	t.Helper()
	for _, s := range document {
		if !slices.Contains(code, s) {
			t.Errorf("%s: %q is in the document only", what, s)
		}
	}
	for _, s := range code {
		if !slices.Contains(document, s) {
			t.Errorf("%s: %q is in the code only", what, s)
		}
	}
	if len(document) != len(code) {
		t.Errorf("%s: %d in the document, %d in the code", what, len(document), len(code))
	}
}

func operation(pattern string) (path, method string) {
	method, path, _ = strings.Cut(pattern, " ")
	return strings.ReplaceAll(path, "{$}", ""), strings.ToLower(method)
}

var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodHead, http.MethodOptions, http.MethodTrace}
