//go:build linux

package imagestore

import (
	"fmt"
	"regexp"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
)

// What references are made of, as in the OCI distribution specification.
var (
	repositoryForm = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	hostForm       = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`)
	tagForm        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	digestForm     = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)
	idForm         = regexp.MustCompile(`^(sha256:)?[0-9a-f]{12,64}$`)
)

const (
	defaultHost = "docker.io"
	official    = "library/"
	maxName     = 255 // Bytes of host and repository together.
)

// Normalize returns the full form of a reference, such as "docker.io/library/debian:12" for "debian:12": host, repository, and a tag or a digest. A digest wins over a tag. It
// answers microvm.ErrInvalid for what can be no reference.
func Normalize(reference string) (string, error) {
	rest, digest, pinned := strings.Cut(reference, "@")
	if pinned && !digestForm.MatchString(digest) {
		return "", bad(reference, "its digest is not sha256: and 64 hexadecimal digits")
	}
	tag := "latest"
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, tag = rest[:i], rest[i+1:]
	}
	host, repository, ok := strings.Cut(rest, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, repository = defaultHost, rest
	}
	if host == "index.docker.io" {
		host = defaultHost
	}
	if host == defaultHost && !strings.Contains(repository, "/") {
		repository = official + repository
	}
	switch {
	case !hostForm.MatchString(host):
		return "", bad(reference, fmt.Sprintf("%q is no host", host))
	case !repositoryForm.MatchString(repository) || len(host)+1+len(repository) > maxName:
		return "", bad(reference, "a name is of a-z, 0-9 and single separators, such as debian:12 or registry.example/team/app:v1")
	case !tagForm.MatchString(tag):
		return "", bad(reference, "a tag is 1 to 128 of A-Z, a-z, 0-9, _, . and -")
	case pinned:
		return host + "/" + repository + "@" + digest, nil
	}
	return host + "/" + repository + ":" + tag, nil
}

// Familiar returns the short form of what Normalize returned, as people write it.
func Familiar(normalized string) string {
	for _, prefix := range []string{defaultHost + "/" + official, defaultHost + "/"} {
		short, ok := strings.CutPrefix(normalized, prefix)
		if again, err := Normalize(short); ok && err == nil && again == normalized {
			return short
		}
	}
	return normalized
}

func bad(reference, reason string) error {
	return &microvm.FieldError{Field: "image reference", Value: reference, Reason: reason}
}
