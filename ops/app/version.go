package app

import "runtime/debug"

// Version is the program's version, as the build knows it.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version, revision, modified := info.Main.Version, "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				modified = " modified"
			}
		}
	}
	if revision != "" {
		version += " (" + revision[:min(12, len(revision))] + modified + ")"
	}
	return version + " " + info.GoVersion
}
