package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// Two endpoints with one subject would answer each other's requests.
func TestEndpointsHaveSubjectsOfTheirOwn(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "api.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		if s, err := strconv.Unquote(lit.Value); err == nil && strings.HasPrefix(s, "svc.") {
			if seen[s] {
				t.Errorf("two endpoints have the subject %s", s)
			}
			seen[s] = true
		}
		return true
	})
	if len(seen) < 20 {
		t.Fatalf("only %d subjects were found", len(seen))
	}
}
