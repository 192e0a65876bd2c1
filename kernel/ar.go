package kernel

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// dataMember returns the files of a package, a tar, and what it is compressed with. A package is an archive of ar(1): debian-binary, control.tar, data.tar, with what
// begins with "_" between them (deb(5)).
func dataMember(r io.Reader) (data *io.LimitedReader, form string, err error) {
	magic := make([]byte, len("!<arch>\n"))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return nil, "", fmt.Errorf("%w: it is no archive of ar", ErrFormat)
	}
	for first := true; ; first = false {
		name, size, err := memberHeader(r)
		if err != nil {
			return nil, "", fmt.Errorf("%w: no data.tar is in it: %w", ErrFormat, err)
		}
		if first && name != "debian-binary" {
			return nil, "", fmt.Errorf("%w: it begins with %q, not with debian-binary", ErrFormat, name)
		}
		if suffix, ok := strings.CutPrefix(name, "data.tar"); ok {
			form, ok := map[string]string{"": "", ".gz": "gzip", ".xz": "xz", ".zst": "zstd"}[suffix]
			if !ok {
				return nil, "", fmt.Errorf("%w: %s (none, .gz, .xz and .zst are known)", ErrFormat, name)
			}
			return &io.LimitedReader{R: r, N: size}, form, nil
		}
		if _, err := io.CopyN(io.Discard, r, size+size&1); err != nil { // members begin at even offsets
			return nil, "", fmt.Errorf("%w: no data.tar is in it: %s: %w", ErrFormat, name, io.ErrUnexpectedEOF)
		}
	}
}

// memberHeader reads what stands before a member: its name in 16 characters, its size as a decimal number in 10.
func memberHeader(r io.Reader) (name string, size int64, err error) {
	header := make([]byte, 60)
	if _, err := io.ReadFull(r, header); err != nil {
		return "", 0, err
	}
	if string(header[58:]) != "`\n" {
		return "", 0, errors.New("a member has no header")
	}
	name = strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/")
	size, err = strconv.ParseInt(strings.TrimRight(string(header[48:58]), " "), 10, 64)
	if err == nil && size < 0 {
		err = errors.New("a member has a negative size")
	}
	return name, size, err
}
