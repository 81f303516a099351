FROM alpine
LABEL	title="日本語" ✓
