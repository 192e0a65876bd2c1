package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// ErrMissingModule is returned for a module that is neither in the tree nor built in.
var ErrMissingModule = errors.New("module is missing")

// ErrVermagic is returned for a module that was built for another kernel.
var ErrVermagic = errors.New("module is of another kernel")

const maxModule = 64 << 20

// Modules is a tree of modules, lib/modules/RELEASE.
type Modules struct {
	dir     string
	files   map[string]string // folded name to path
	builtin map[string]bool   // folded names
}

// Module is one module, uncompressed.
type Module struct {
	Name    string // With underscores, as the kernel names it.
	Content []byte
}

// OpenModules opens the tree of one release. It needs no modules.dep: the modules say themselves what they depend on.
func OpenModules(dir string) (*Modules, error) {
	dir, err := filepath.EvalSymlinks(dir) // a link to the tree has another name than the release
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	m := &Modules{dir: dir, files: map[string]string{}, builtin: map[string]bool{}}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, ok := moduleName(entry.Name()); ok && entry.Type().IsRegular() {
			m.files[name] = path
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("modules: %w", err)
	}
	for line := range strings.Lines(string(list)) {
		if name, ok := moduleName(filepath.Base(strings.TrimSpace(line))); ok {
			m.builtin[name] = true
		}
	}
	return m, nil
}

// Release returns the kernel's release: the directory's name.
func (m *Modules) Release() string { return filepath.Base(m.dir) }

// moduleName returns a file's module name, with '-' folded to '_' as the kernel does.
func moduleName(file string) (string, bool) {
	for _, suffix := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if name, ok := strings.CutSuffix(file, suffix); ok {
			return fold(name), true
		}
	}
	return "", false
}

func fold(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Resolve returns the named modules and all that they depend on, dependencies first, without those that are built in.
func (m *Modules) Resolve(names ...string) ([]Module, error) {
	r := resolver{modules: m, seen: map[string]bool{}}
	for _, name := range names {
		if err := r.add(fold(name), nil); err != nil {
			return nil, err
		}
	}
	return r.order, nil
}

type resolver struct {
	modules *Modules
	seen    map[string]bool
	order   []Module
}

func (r *resolver) add(name string, path []string) error {
	if r.seen[name] || r.modules.builtin[name] {
		return nil
	}
	r.seen[name] = true // before its dependencies: a circle ends here
	file, ok := r.modules.files[name]
	if !ok {
		return fmt.Errorf("%w: %s in %s%s", ErrMissingModule, name, r.modules.dir, neededBy(path))
	}
	content, err := readModule(file)
	if err != nil {
		return err
	}
	info, err := modinfo(content)
	if err != nil {
		return fmt.Errorf("module %s: %w", file, err)
	}
	if magic, _, _ := strings.Cut(info["vermagic"], " "); magic != "" && magic != r.modules.Release() {
		return fmt.Errorf("%w: %s is for %s, not for %s", ErrVermagic, file, magic, r.modules.Release())
	}
	for dependency := range strings.SplitSeq(info["depends"], ",") {
		if dependency == "" {
			continue
		}
		if err := r.add(fold(dependency), append(path, name)); err != nil {
			return err
		}
	}
	r.order = append(r.order, Module{Name: name, Content: content})
	return nil
}

func neededBy(path []string) string {
	if len(path) == 0 {
		return ""
	}
	return ", needed by " + strings.Join(path, " → ")
}

// readModule reads a module's file and decompresses it.
func readModule(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r io.Reader = bytes.NewReader(raw)
	switch filepath.Ext(path) {
	case ".xz":
		r, err = xz.NewReader(r)
	case ".gz":
		r, err = gzip.NewReader(r)
	case ".zst":
		r, err = zstd.NewReader(r, zstd.WithDecoderMaxMemory(maxModule))
	default:
		return raw, nil
	}
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", path, err)
	}
	content, err := io.ReadAll(io.LimitReader(r, maxModule))
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", path, err)
	}
	return content, nil
}

// modinfo returns the section .modinfo: NAME=VALUE, each ended by NUL.
func modinfo(content []byte) (map[string]string, error) {
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no section .modinfo")
	}
	text, err := section.Data()
	if err != nil {
		return nil, err
	}
	info := map[string]string{}
	for pair := range strings.SplitSeq(string(text), "\x00") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			info[name] = value
		}
	}
	return info, nil
}
