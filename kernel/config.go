package kernel

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
)

// maxConfig bounds a configuration in bytes; those of distributions have 300 KiB.
const maxConfig = 4 << 20

// Marks around a configuration that is built into a kernel, compressed with gzip (kernel/configs.c).
var (
	configBegin = []byte("IKCFG_ST")
	configEnd   = []byte("IKCFG_ED")
)

// Config returns the configuration that is built into a kernel, a vmlinux or an arm64 Image (CONFIG_IKCONFIG). ErrFormat when there is none: distributions ship it as a file
// beside the kernel instead.
func Config(image []byte) ([]byte, error) {
	for rest := image; ; {
		at := bytes.Index(rest, configBegin)
		if at < 0 {
			return nil, fmt.Errorf("%w: no configuration is built in", ErrFormat)
		}
		rest = rest[at+len(configBegin):]
		packed, _, ok := bytes.Cut(rest, configEnd)
		if !ok || !bytes.HasPrefix(packed, []byte{0x1f, 0x8b}) { // the mark as a text of its own
			continue
		}
		config, err := unpackConfig(packed)
		if err != nil {
			return nil, fmt.Errorf("%w: built-in configuration: %w", ErrFormat, err)
		}
		return config, nil
	}
}

func unpackConfig(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	r.Multistream(false)
	config, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err == nil && len(config) > maxConfig {
		err = fmt.Errorf("larger than %d bytes", maxConfig)
	}
	return config, err
}

// parseConfig returns the options that are set, without CONFIG_: "y", "m", or a value.
func parseConfig(config []byte) map[string]string {
	options := map[string]string{}
	for line := range strings.Lines(string(config)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if name, set := strings.CutPrefix(name, "CONFIG_"); ok && set {
			options[name] = value
		}
	}
	return options
}
