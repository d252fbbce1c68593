package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

// declared are the names of the package-level constants and variables of a file that keep tells.
func declared(t *testing.T, file string, keep func(*ast.ValueSpec) bool) (out []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range g.Specs {
			if v, ok := s.(*ast.ValueSpec); ok && keep(v) {
				out = append(out, v.Names[0].Name)
			}
		}
	}
	return out
}

func TestCodesAreAllListed(t *testing.T) {
	n := len(declared(t, "codes.go", func(v *ast.ValueSpec) bool {
		id, ok := v.Type.(*ast.Ident)
		return ok && id.Name == "Code"
	}))
	if n != len(Codes) {
		t.Errorf("%d codes, %d in Codes", n, len(Codes))
	}
	seen := map[Code]bool{}
	for _, c := range Codes {
		if seen[c] {
			t.Errorf("%s is listed twice", c)
		}
		seen[c] = true
		if s := c.HTTPStatus(); http.StatusText(s) == "" || (s == http.StatusInternalServerError) != (c == Internal) {
			t.Errorf("%s has status %d", c, s)
		}
	}
	if s := Code("from_the_future").HTTPStatus(); s != http.StatusInternalServerError {
		t.Errorf("an unknown code has status %d", s)
	}
}

// JavaScript has the list once more; a code that is temporary in one language only would be tried again for ever, or never.
func TestCodesTemporaryIsTheSameInJavaScript(t *testing.T) {
	b, err := os.ReadFile("../js/errors.js")
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(string(b), "const TEMPORARY = ")
	list, _, end := strings.Cut(list, ";")
	var codes []Code
	if err := json.Unmarshal([]byte(list), &codes); !ok || !end || err != nil {
		t.Fatalf("no list in %q: %v", list, err)
	}
	for _, c := range Codes {
		if c.Temporary() != slices.Contains(codes, c) {
			t.Errorf("%s is temporary in one language only", c)
		}
	}
}

func TestClosesAreAllListed(t *testing.T) {
	n := len(declared(t, "close.go", func(v *ast.ValueSpec) bool {
		if len(v.Values) != 1 {
			return false
		}
		lit, ok := v.Values[0].(*ast.CompositeLit)
		if !ok {
			return false
		}
		id, ok := lit.Type.(*ast.Ident)
		return ok && id.Name == "Close"
	}))
	if n != len(Closes) {
		t.Errorf("%d closes, %d in Closes", n, len(Closes))
	}
	seen := map[int]bool{}
	for _, c := range Closes {
		if seen[c.Code] {
			t.Errorf("%d is listed twice", c.Code)
		}
		seen[c.Code] = true
		if c.Reconnect != ShouldReconnect(c.Code) {
			t.Errorf("%d: reconnect %v, the rule for clients says %v", c.Code, c.Reconnect, !c.Reconnect)
		}
		if len(c.Reason) == 0 || len(c.Reason) > 123 { // RFC 6455, section 5.5: a control frame has 125 bytes, 2 are the code
			t.Errorf("%d: a reason of %d bytes", c.Code, len(c.Reason))
		}
	}
}

func TestClosesShouldReconnect(t *testing.T) {
	for code, want := range map[int]bool{
		1000: false, 1001: true, 1002: false, 1003: false, 1005: true, 1006: true, 1007: false, 1008: false, 1009: false, 1010: false,
		1011: true, 1012: true, 1013: true, 1014: false, 1015: false, 3000: false, 3999: false, 4000: true, 4499: true, 4500: false, 4999: false, 5000: false, 0: false, -1: false,
	} {
		if ShouldReconnect(code) != want {
			t.Errorf("%d: %v", code, !want)
		}
	}
}

func TestErrorAs(t *testing.T) {
	e := E(Forbidden, "no")
	if AsError(e) != e {
		t.Error("an *Error was replaced")
	}
	for _, err := range []error{errors.New("inside"), fmt.Errorf("inside: %w", e)} {
		if got := AsError(err); got.Code != Internal {
			t.Errorf("%v became %v", err, got)
		}
	}
	if e.Error() != "forbidden: no" {
		t.Error(e.Error())
	}
}
