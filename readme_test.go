package microvm_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// TestReadmeShowsWhatIsTested: the README's code is the function of package firecracker's example, word for word, which the compiler reads and ring 4 runs.
func TestReadmeShowsWhatIsTested(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "```go\n")
	shown, rest, ends := strings.Cut(rest, "```")
	if !ok || !ends || strings.Contains(rest, "```go") {
		t.Fatal("README.md has not one block of Go")
	}
	const path = "firecracker/example_test.go"
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, declaration := range file.Decls {
		if f, ok := declaration.(*ast.FuncDecl); ok && f.Name.Name == "job" {
			if tested := string(source[files.Position(f.Pos()).Offset:files.Position(f.End()).Offset]) + "\n"; shown != tested {
				t.Errorf("README.md shows\n%s\nand %s has\n%s", shown, path, tested)
			}
			return
		}
	}
	t.Errorf("%s has no function job", path)
}
