package kernel

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

// Initramfs says what an initial RAM file system holds.
type Initramfs struct {
	Init    string   // Path of the first program: a static binary.
	Modules []Module // In the order in which Init is to load them; see [Modules.Resolve].
}

// WriteInitramfs writes /init, the modules, their list in /etc/microvm/modules, and the directories that an init mounts on. It is not compressed: the host's page cache
// holds one copy, and no guest spends time on it.
func WriteInitramfs(w io.Writer, i Initramfs) error {
	init, err := os.ReadFile(i.Init)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	buffered := bufio.NewWriterSize(w, 1<<20)
	c := NewCpio(buffered)
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "etc", "etc/microvm", "lib", "lib/modules"} {
		c.Dir(dir, 0o755)
	}
	c.CharDevice("dev/console", 0o600, 5, 1)
	c.CharDevice("dev/null", 0o666, 1, 3)
	var list strings.Builder
	for _, module := range i.Modules {
		path := "lib/modules/" + module.Name + ".ko"
		c.File(path, 0o644, module.Content)
		fmt.Fprintln(&list, "/"+path)
	}
	c.File("etc/microvm/modules", 0o644, []byte(list.String()))
	c.File("init", 0o755, init)
	if err := c.Close(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return buffered.Flush()
}
