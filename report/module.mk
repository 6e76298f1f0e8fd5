# report/: a page of drawings from JSON.
REPORT_LIB := $(B)/libumbra-report.a
$(REPORT_LIB): $(call objs,report)
$(B)/report/style.o: report/style.css
ALL += $(REPORT_LIB)
