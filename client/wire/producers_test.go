package wire

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// root of the repository.
const root = "../.."

// producers are the names of this package that a file gives to somebody: it does more with them than to compare them with what it got.
func producers(t *testing.T, file string) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	compared := map[ast.Node]bool{}
	out := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			compared[n.X], compared[n.Y] = true, true
		case *ast.CaseClause:
			for _, e := range n.List {
				compared[e] = true
			}
		case *ast.SelectorExpr:
			if compared[n] {
				compared[n.X] = true // wire.CloseNormal.Code
			}
			if id, ok := n.X.(*ast.Ident); ok && id.Name == "wire" && !compared[n] {
				out[n.Sel.Name] = true
			}
		}
		return true
	})
	return out
}

// TestCodesAndClosesAreProduced holds what the protocol declares to what the services do.
func TestCodesAndClosesAreProduced(t *testing.T) {
	produced := map[string]bool{}
	for _, dir := range []string{"services", "pkg"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case filepath.Ext(path) != ".go", strings.HasSuffix(path, "_test.go"):
				return nil
			}
			for name := range producers(t, path) {
				produced[name] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"codes.go", "close.go"} {
		for _, name := range declared(t, file, func(v *ast.ValueSpec) bool { return v.Names[0].Name != "Codes" && v.Names[0].Name != "Closes" }) {
			if !produced[name] {
				t.Errorf("%s: nothing outside of this package gives %s to anybody", file, name)
			}
		}
	}
}

// shown names the test that makes a server answer with a code. That of the closes is TestClosesAreAllSent of the gateway's package native.
var shown = map[string]struct{ file, test string }{
	"InvalidFrame":       {"tests/scenario/input_test.go", "badFrames"},
	"UnknownEvent":       {"tests/scenario/input_test.go", "badFrames"},
	"InvalidArgument":    {"tests/scenario/input_test.go", "badFrames"},
	"TooLarge":           {"tests/scenario/input_test.go", "badFrames"},
	"Forbidden":          {"tests/scenario/input_test.go", "badRooms"},
	"Unauthenticated":    {"tests/scenario/tokens_test.go", "badTokens"},
	"UnknownUser":        {"tests/scenario/input_test.go", "badRooms"},
	"InvalidUsername":    {"services/gateway/internal/httpapi/people_test.go", "TestPairs"},
	"IDConflict":         {"tests/scenario/ids_test.go", "clientIDs"},
	"TooManyConnections": {"services/gateway/internal/connections/connections_test.go", "TestConnectionsLivingOnesOfAUserStay"},
	"RateLimited":        {"services/auth/login_test.go", "TestLoginThrottle"},
	"Unavailable":        {"services/gateway/internal/bus/publish_test.go", "TestPublishRefused"},
	"Internal":           {"services/gateway/internal/httpapi/handler_test.go", "TestErrors"},
	"UsernameTaken":      {"services/auth/login_test.go", "TestNamesThatCannotBeRegistered"},
	"NotFound":           {"services/gateway/internal/httpapi/handler_test.go", "TestUnknownPathsAndMethods"},
}

// TestCodesHaveTests fails for a code that no test produces, and when the test that did so has gone or has forgotten it.
func TestCodesHaveTests(t *testing.T) {
	for _, name := range declared(t, "codes.go", func(v *ast.ValueSpec) bool { return v.Names[0].Name != "Codes" }) {
		where, ok := shown[name]
		if !ok {
			t.Errorf("no test is named that produces %s", name)
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, where.file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == where.test {
				ast.Inspect(fn, func(n ast.Node) bool {
					s, ok := n.(*ast.SelectorExpr)
					found = found || ok && s.Sel.Name == name
					return !found
				})
			}
		}
		if !found {
			t.Errorf("%s of %s does not look at %s", where.test, where.file, name)
		}
	}
}
