package microvm_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/tangle-network/microvm-runtime"

// allowed says which modules each public package may link beside the standard library and this one.
var allowed = map[string][]string{
	".":                 nil,
	"./inmemory":        nil,
	"./warmpool":        nil,
	"./runtimetest":     nil,
	"./guest":           nil,
	"./egress":          nil,
	"./firecracker/api": nil,
	"./guest/guesttest": {"golang.org/x/sys"},
	"./kernel":          {"github.com/klauspost/compress", "github.com/pierrec/lz4", "github.com/therootcompany/xz"},
	"./image": {"github.com/google/go-containerregistry", "github.com/docker/cli/cli/config", "github.com/docker/docker-credential-helpers", "github.com/opencontainers/go-digest",
		"github.com/klauspost/compress", "golang.org/x/sync", "github.com/Microsoft/hcsshim", "github.com/Microsoft/go-winio", "github.com/sirupsen/logrus", "golang.org/x/sys",
		"github.com/pkg/errors", "github.com/containerd", "go.opentelemetry.io", "github.com/go-logr", "google.golang.org", "github.com/cespare/xxhash"},
	"./firecracker": {"golang.org/x/sys", "github.com/klauspost/compress", "github.com/pierrec/lz4", "github.com/therootcompany/xz", "github.com/vishvananda/netlink", "github.com/vishvananda/netns",
		"github.com/google/nftables", "github.com/mdlayher/netlink", "github.com/mdlayher/socket", "github.com/miekg/dns", "golang.org/x/net", "golang.org/x/sync"},
	"./internal/imagestore": {"golang.org/x/sys"}, // package firecracker finds images by it
	"./internal/snapstore": {"golang.org/x/sys", "github.com/klauspost/compress", "github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/google/nftables", "github.com/mdlayher/netlink",
		"github.com/mdlayher/socket", "golang.org/x/net", "golang.org/x/sync"},
	"./doctor": {"golang.org/x/sys", "github.com/klauspost/compress", "github.com/pierrec/lz4", "github.com/therootcompany/xz", "github.com/vishvananda/netlink", "github.com/vishvananda/netns",
		"github.com/google/nftables", "github.com/mdlayher/netlink", "github.com/mdlayher/socket", "github.com/miekg/dns", "golang.org/x/net", "golang.org/x/sync"},
}

func TestPackagesLinkOnlyWhatTheyMay(t *testing.T) {
	for pkg, modules := range allowed {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg).Output()
		if err != nil {
			t.Fatal(pkg, err)
		}
		for path := range strings.FieldsSeq(string(out)) {
			ok := path == module || strings.HasPrefix(path, module+"/")
			for _, prefix := range modules {
				ok = ok || strings.HasPrefix(path, prefix)
			}
			if !ok {
				t.Errorf("%s links %s", pkg, path)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	documented := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != "." {
			_, nested := os.Stat(filepath.Join(path, "go.mod"))
			if nested == nil || strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" {
				return filepath.SkipDir
			}
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		documented[dir] = documented[dir] || file.Doc != nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(documented) < 20 {
		t.Errorf("only %d packages were found", len(documented))
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

// TestEveryDependencyHasItsReason in docs/architecture.md.
func TestEveryDependencyHasItsReason(t *testing.T) {
	reasons, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(reasons), "## Direct dependencies")
	table, _, _ = strings.Cut(table, "\n## ")
	out, err := exec.Command("go", "list", "-m", "-f", "{{if not (or .Main .Indirect)}}{{.Path}}{{end}}", "all").Output()
	if err != nil || !found {
		t.Fatalf("%v, a table: %t", err, found)
	}
	modules := strings.Fields(string(out))
	if len(modules) < 5 {
		t.Errorf("only %d direct dependencies were found", len(modules))
	}
	for _, path := range modules {
		path = regexp.MustCompile(`/v[0-9]+$`).ReplaceAllString(path, "")
		if !strings.Contains(table, path) {
			t.Errorf("%s has no line in the table of direct dependencies", path)
		}
	}
}
