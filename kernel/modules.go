package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// ErrMissingModule is returned for a module that is neither in the tree nor built in.
var ErrMissingModule = errors.New("module is missing")

// ErrVermagic is returned for a module that was built for another kernel.
var ErrVermagic = errors.New("module is of another kernel")

const maxModule = 64 << 20

// Modules is a tree of modules, lib/modules/RELEASE.
type Modules struct {
	place   string                // for people; ends with the release
	files   map[string]moduleFile // by folded name
	builtin map[string]bool       // folded names
}

// moduleFile is a module as it is shipped.
type moduleFile struct {
	path string
	form string // what it is compressed with; see decompressor
	open func() (io.ReadCloser, error)
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
	m := newModules(dir)
	err = filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			m.add(file, func() (io.ReadCloser, error) { return os.Open(file) })
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	list, err := os.ReadFile(filepath.Join(dir, builtinList))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("modules: %w", err)
	}
	m.addBuiltin(list)
	return m, nil
}

// builtinList is the file of a tree that names what is built in.
const builtinList = "modules.builtin"

func newModules(place string) *Modules {
	return &Modules{place: place, files: map[string]moduleFile{}, builtin: map[string]bool{}}
}

// add adds a file when it is a module.
func (m *Modules) add(file string, open func() (io.ReadCloser, error)) {
	if name, form, ok := moduleName(path.Base(filepath.ToSlash(file))); ok {
		m.files[name] = moduleFile{file, form, open}
	}
}

func (m *Modules) addBuiltin(list []byte) {
	for line := range strings.Lines(string(list)) {
		if name, _, ok := moduleName(path.Base(strings.TrimSpace(line))); ok {
			m.builtin[name] = true
		}
	}
}

// Release returns the kernel's release: the directory's name.
func (m *Modules) Release() string { return filepath.Base(m.place) }

// moduleName returns a file's module name, with '-' folded to '_' as the kernel does, and what it is compressed with.
func moduleName(file string) (name, form string, ok bool) {
	for suffix, form := range map[string]string{".ko": "", ".ko.xz": "xz", ".ko.zst": "zstd", ".ko.gz": "gzip"} {
		if name, ok := strings.CutSuffix(file, suffix); ok {
			return fold(name), form, true
		}
	}
	return "", "", false
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
		return fmt.Errorf("%w: %s in %s%s", ErrMissingModule, name, r.modules.place, neededBy(path))
	}
	content, err := file.read()
	if err != nil {
		return err
	}
	info, err := modinfo(content)
	if err != nil {
		return fmt.Errorf("module %s: %w", file.path, err)
	}
	if magic, _, _ := strings.Cut(info["vermagic"], " "); magic != "" && magic != r.modules.Release() {
		return fmt.Errorf("%w: %s is for %s, not for %s", ErrVermagic, file.path, magic, r.modules.Release())
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

// read returns the module uncompressed.
func (f moduleFile) read() ([]byte, error) {
	r, err := f.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := readAtMost(f.form, r, maxModule)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", f.path, err)
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
