//go:build linux

// Package busyguest makes guests of a user's own, which know nothing of the agent: busybox, a script, and what the script needs.
//
// There are only two functions: [WriteInitrd] and [WriteRootfs].
package busyguest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/tangle-network/microvm-runtime/image"
	"github.com/tangle-network/microvm-runtime/kernel"
)

// Guest is an initial RAM file system whose first program loads modules and becomes a script.
type Guest struct {
	Busybox string   // Path of a static busybox.
	Modules string   // A directory lib/modules/RELEASE.
	Load    []string // Names of modules, which are loaded after those that they need.
	First   string   // For busybox's shell, as soon as the modules are loaded. There is nothing in PATH: an applet is /bin/busybox APPLET. Optional.
	Script  string   // For busybox's shell. /proc, /sys and /dev are mounted, and every applet is in PATH.
}

// places are directories that a script may mount on.
var places = []string{"bin", "dev", "proc", "sys", "tmp", "root", "etc", "sbin"}

const prologue = `#!/bin/busybox sh
export PATH=/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
`

// WriteInitrd writes the guest to a file.
func WriteInitrd(path string, g Guest) error {
	tree, err := kernel.OpenModules(g.Modules)
	if err != nil {
		return err
	}
	modules, err := tree.Resolve(g.Load...)
	if err != nil {
		return err
	}
	busybox, err := os.ReadFile(g.Busybox)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	c := kernel.NewCpio(f)
	for _, dir := range append(places, "mod") {
		c.Dir(dir, 0o755)
	}
	c.CharDevice("dev/console", 0o600, 5, 1)
	c.File("bin/busybox", 0o755, busybox)
	load := []string{}
	for _, module := range modules {
		c.File("mod/"+module.Name+".ko", 0o644, module.Content)
		load = append(load, "/bin/busybox insmod /mod/"+module.Name+".ko\n")
	}
	install := "/bin/busybox --install -s /bin\n"
	c.File("init", 0o755, []byte(prologue+strings.Join(load, "")+g.First+install+g.Script))
	return errors.Join(c.Close(), f.Close())
}

// WriteRootfs writes a root file system whose /sbin/init is busybox's, with more files by their names, all executable.
func WriteRootfs(ctx context.Context, path, busybox string, files map[string]string) error {
	tree, err := os.MkdirTemp("", "busyguest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	for _, dir := range places {
		if err := os.Mkdir(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	err = errors.Join(os.WriteFile(filepath.Join(tree, "bin/busybox"), program, 0o755), os.Symlink("../bin/busybox", filepath.Join(tree, "sbin/init")),
		os.Symlink("busybox", filepath.Join(tree, "bin/sh")))
	for name, text := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(tree, name), []byte(text), 0o755))
	}
	if err != nil {
		return err
	}
	_, err = image.FromDir(ctx, tree, path)
	return err
}
